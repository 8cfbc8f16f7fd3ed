use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{
    AddressSpace, BinaryOperator, Expression, Function, Handle, Literal, Module, ScalarKind,
    ShaderStage, Statement, StorageAccess,
};

use super::{ALL, Binding, BindingKind, CheckOutcome, Params, Shader, Sum, pattern};

const COMMON: &str = include_str!("common.wgsl");

fn wgsl(shader: &Shader) -> Module {
    let own = match shader.name {
        "pattern_write" => include_str!("pattern_write.wgsl"),
        "pattern_check" => include_str!("pattern_check.wgsl"),
        "streaming_read" => include_str!("streaming_read.wgsl"),
        name => panic!("no source for {name}"),
    };
    naga::front::wgsl::parse_str(&format!("{own}{COMMON}")).unwrap()
}

fn spirv(shader: &Shader) -> Module {
    naga::front::spv::Frontend::new(shader.spirv.iter().copied(), &Default::default())
        .parse()
        .unwrap()
}

fn validate(module: &Module) {
    Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(module)
        .unwrap();
}

/// The buffers of a module by rising binding number, names left out where the module has none.
fn bindings(module: &Module) -> Vec<(u32, u32, BindingKind)> {
    let mut found: Vec<_> = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| {
            let binding = variable.binding?;
            let kind = match variable.space {
                AddressSpace::Uniform => BindingKind::Uniform,
                AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => {
                    BindingKind::StorageReadWrite
                }
                AddressSpace::Storage { .. } => BindingKind::StorageRead,
                ref other => panic!("binding {binding:?} in {other:?}"),
            };
            Some((binding.group, binding.binding, kind))
        })
        .collect();
    found.sort_by_key(|(group, binding, _)| (*group, *binding));
    found
}

/// What the documentation of each module promises, typed in again.
fn promised(shader: &Shader) -> Vec<(&'static str, BindingKind)> {
    use BindingKind::{StorageRead, StorageReadWrite, Uniform};
    match shader.name {
        "pattern_write" => vec![("data", StorageReadWrite), ("params", Uniform)],
        "pattern_check" => vec![
            ("data", StorageRead),
            ("params", Uniform),
            ("outcome", StorageReadWrite),
        ],
        "streaming_read" => vec![
            ("data", StorageRead),
            ("params", Uniform),
            ("sum", StorageReadWrite),
        ],
        name => panic!("nothing promised for {name}"),
    }
}

#[test]
fn wgsl_is_valid() {
    for shader in &ALL {
        validate(&wgsl(shader));
    }
}

#[test]
fn spirv_has_the_header_of_version_1_3() {
    for shader in &ALL {
        assert_eq!(shader.spirv[0], 0x0723_0203, "{}", shader.name);
        assert_eq!(shader.spirv[1], 0x0001_0300, "{}", shader.name);
    }
}

#[test]
fn spirv_parses_back_and_is_valid() {
    for shader in &ALL {
        let module = spirv(shader);
        validate(&module);
        let [entry] = module.entry_points.as_slice() else {
            panic!("{}: not one entry point", shader.name);
        };
        assert_eq!(entry.name, shader.entry_point);
        assert_eq!(entry.stage, ShaderStage::Compute);
        assert_eq!(entry.workgroup_size, shader.workgroup_size);
        assert_eq!(shader.workgroup_size, [64, 1, 1]);
    }
}

#[test]
fn bindings_are_as_documented() {
    for shader in &ALL {
        let expected: Vec<Binding> = promised(shader)
            .into_iter()
            .zip(0..)
            .map(|((name, kind), binding)| Binding {
                group: 0,
                binding,
                name,
                kind,
            })
            .collect();
        assert_eq!(shader.bindings, expected, "{}", shader.name);
        let bare: Vec<_> = expected
            .iter()
            .map(|b| (b.group, b.binding, b.kind))
            .collect();
        assert_eq!(bindings(&wgsl(shader)), bare, "{}", shader.name);
        assert_eq!(bindings(&spirv(shader)), bare, "{}", shader.name);
    }
}

#[test]
fn host_structs_have_the_size_and_order_of_the_shaders() {
    for shader in &ALL {
        let module = wgsl(shader);
        for (_, ty) in module.types.iter() {
            let naga::TypeInner::Struct { members, span } = &ty.inner else {
                continue;
            };
            let names: Vec<_> = members.iter().filter_map(|m| m.name.as_deref()).collect();
            let (expected, size): (&[&str], usize) = match ty.name.as_deref() {
                Some("Params") => (&["seed", "first_index", "count", "reserved"], Params::SIZE),
                Some("Outcome") => (
                    &["checked", "mismatches", "first_mismatch"],
                    CheckOutcome::SIZE,
                ),
                Some("Sum") => (&["words", "total"], Sum::SIZE),
                other => panic!("{}: struct {other:?}", shader.name),
            };
            assert_eq!(names, expected);
            assert_eq!(usize::try_from(*span).unwrap(), size);
            for (member, index) in members.iter().zip(0..) {
                assert_eq!(member.offset, index * 4);
            }
        }
    }
}

#[test]
fn host_structs_are_little_endian() {
    let params = Params {
        seed: 0x0102_0304,
        first_index: 5,
        count: 6,
    };
    assert_eq!(
        params.to_bytes(),
        [4, 3, 2, 1, 5, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]
    );
    let outcome = CheckOutcome::from_bytes(&[9, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(
        outcome,
        CheckOutcome {
            checked: 9,
            mismatches: 1,
            first_mismatch: 256
        }
    );
    assert_eq!(
        CheckOutcome::START.to_bytes(),
        [0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]
    );
    let sum = Sum {
        words: 1,
        total: 0xa0b0_c0d0,
    };
    assert_eq!(sum.to_bytes(), [1, 0, 0, 0, 0xd0, 0xc0, 0xb0, 0xa0]);
    assert_eq!(Sum::from_bytes(&sum.to_bytes()), sum);
}

/// Runs the compiled `pattern_word` and compares it with its Rust twin.
#[test]
fn shaders_and_host_agree_on_the_pattern() {
    for shader in ALL.iter().filter(|s| s.name.starts_with("pattern_")) {
        for module in [wgsl(shader), spirv(shader)] {
            let (_, function) = module
                .functions
                .iter()
                .find(|(_, f)| f.arguments.len() == 2)
                .unwrap();
            for index in [0, 1, 2, 63, 64, 0x1234_5678, u32::MAX] {
                for seed in [0, 1, 0xdead_beef, u32::MAX] {
                    assert_eq!(
                        run(&module, function, &[index, seed]),
                        pattern::word(index, seed),
                        "{}: index {index}, seed {seed}",
                        shader.name
                    );
                }
            }
        }
    }
}

/// Runs a function that has no branches, no variables and only `u32` values.
fn run(module: &Module, function: &Function, arguments: &[u32]) -> u32 {
    let mut result = None;
    for statement in &function.body {
        match statement {
            Statement::Emit(_) => {}
            Statement::Return { value } => {
                result = value.map(|v| value_of(module, function, v, arguments));
            }
            other => panic!("not straight-line code: {other:?}"),
        }
    }
    result.unwrap()
}

fn value_of(
    module: &Module,
    function: &Function,
    handle: Handle<Expression>,
    arguments: &[u32],
) -> u32 {
    match function.expressions[handle] {
        Expression::FunctionArgument(n) => arguments[usize::try_from(n).unwrap()],
        Expression::Literal(Literal::U32(value)) => value,
        Expression::Constant(constant) => {
            match module.global_expressions[module.constants[constant].init] {
                Expression::Literal(Literal::U32(value)) => value,
                ref other => panic!("constant {other:?}"),
            }
        }
        // A SPIR-V shift has its operands re-interpreted; the bits stay.
        Expression::As {
            expr,
            kind: ScalarKind::Uint,
            convert: None,
        } => value_of(module, function, expr, arguments),
        Expression::Binary { op, left, right } => {
            let left = value_of(module, function, left, arguments);
            let right = value_of(module, function, right, arguments);
            match op {
                BinaryOperator::Add => left.wrapping_add(right),
                BinaryOperator::Multiply => left.wrapping_mul(right),
                BinaryOperator::ExclusiveOr => left ^ right,
                BinaryOperator::ShiftRight => left >> right,
                other => panic!("operator {other:?}"),
            }
        }
        ref other => panic!("expression {other:?}"),
    }
}
