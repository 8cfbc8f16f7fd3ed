//! Compiles `src/*.wgsl` to SPIR-V and writes one `Shader` constant per module for `lib.rs` to include.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use naga::back::spv;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, SourceLocation, Span, StorageAccess};

/// The modules: name of the WGSL file, name of the constant, what the documentation says first.
const MODULES: [(&str, &str, &str); 3] = [
    (
        "pattern_write",
        "PATTERN_WRITE",
        "Fills a buffer with the pattern.",
    ),
    (
        "pattern_check",
        "PATTERN_CHECK",
        "Compares a buffer with the pattern: counts mismatches and keeps the lowest position of one.",
    ),
    (
        "streaming_read",
        "STREAMING_READ",
        "Reads a buffer from start to end and adds up all of its words.",
    ),
];

/// WGSL that each module gets appended.
const COMMON: &str = "common";

/// SPIR-V version, major and minor: what Vulkan 1.1 must accept.
const SPIRV_VERSION: (u8, u8) = (1, 3);

fn main() {
    println!("cargo::rerun-if-changed=src");
    if let Err(error) = generate() {
        println!("cargo::error={}", one_line(&error.to_string()));
        std::process::exit(1);
    }
}

fn generate() -> Result<(), Box<dyn Error>> {
    let mut rust = String::new();
    for (name, constant, summary) in MODULES {
        compile(name, constant, summary, &mut rust)?;
    }
    let target = Path::new(&env::var("OUT_DIR")?).join("modules.rs");
    fs::write(&target, rust).map_err(|e| format!("cannot write {}: {e}", target.display()))?;
    Ok(())
}

/// Appends the Rust of one module to `rust`.
fn compile(
    name: &str,
    constant: &str,
    summary: &str,
    rust: &mut String,
) -> Result<(), Box<dyn Error>> {
    let own = read(name)?;
    // The common part comes last, so that the lines of the module's own file keep their numbers.
    let source = format!("{own}{}", read(COMMON)?);
    let at = |location: Option<SourceLocation>| position(name, &own, location);

    let module = naga::front::wgsl::parse_str(&source).map_err(|e| {
        // Some labels have no place in the source.
        let span = e.labels().map(|(span, _)| span).find(Span::is_defined);
        format!("{}: {}", at(span.map(|s| s.location(&source))), e.message())
    })?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .map_err(|e| format!("{}: {}", at(e.location(&source)), chain(e.as_inner())))?;
    let words = to_spirv(&module, &info).map_err(|e| format!("{name}.wgsl: {e}"))?;

    let [entry] = module.entry_points.as_slice() else {
        return Err(format!("{name}.wgsl: one entry point is needed, not several or none").into());
    };
    writeln!(rust, "/// {summary}\n///")?;
    let mut bindings = String::new();
    for (_, variable) in module.global_variables.iter() {
        let Some(binding) = variable.binding else {
            continue;
        };
        let (kind, text) = match variable.space {
            AddressSpace::Uniform => ("Uniform", "uniform buffer"),
            AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => {
                ("StorageReadWrite", "storage buffer, written")
            }
            AddressSpace::Storage { .. } => ("StorageRead", "storage buffer, read only"),
            _ => return Err(format!("{name}.wgsl: a binding that is not a buffer").into()),
        };
        let label = variable.name.as_deref().unwrap_or_default();
        writeln!(rust, "/// * binding {}: `{label}`, {text}", binding.binding)?;
        write!(
            bindings,
            "Binding {{ group: {}, binding: {}, name: {label:?}, kind: BindingKind::{kind} }}, ",
            binding.group, binding.binding
        )?;
    }
    writeln!(
        rust,
        "pub const {constant}: Shader = Shader {{ name: {name:?}, entry_point: {:?}, \
         workgroup_size: {:?}, bindings: &[{bindings}], spirv: &{words:#010x?} }};",
        entry.name, entry.workgroup_size
    )?;
    Ok(())
}

fn read(name: &str) -> Result<String, String> {
    let path = format!("src/{name}.wgsl");
    fs::read_to_string(&path).map_err(|e| format!("cannot read {path}: {e}"))
}

fn to_spirv(module: &Module, info: &ModuleInfo) -> Result<Vec<u32>, spv::Error> {
    let options = spv::Options {
        lang_version: SPIRV_VERSION,
        // The only workgroup memory is written before it is read.
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        // Every loop ends by its own condition.
        force_loop_bounding: false,
        ..spv::Options::default()
    };
    spv::write_vec(module, info, &options, None)
}

/// `src/NAME.wgsl:LINE:COLUMN` of an error in the module or in the common part behind it.
fn position(name: &str, own: &str, location: Option<SourceLocation>) -> String {
    let Some(location) = location else {
        return format!("src/{name}.wgsl");
    };
    let own_lines = u32::try_from(own.lines().count()).unwrap_or(u32::MAX);
    let (file, line) = match location.line_number.checked_sub(own_lines) {
        Some(line @ 1..) => (COMMON, line),
        _ => (name, location.line_number),
    };
    format!("src/{file}.wgsl:{line}:{}", location.line_position)
}

/// An error and what caused it, in one text.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
