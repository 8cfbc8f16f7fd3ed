//! Vulkan by Venus on software Mesa.

use std::path::Path;

use nosnoop_guest::wire::commands::Ending;
use nosnoop_tests::lab::venus::{Found, Guest, Programs, TestMachine};

use super::*;

/// The tests that see more where memory of the host's Vulkan can be mapped.
const MAPPING_TESTS: [&str; 3] = ["compute::", "blobs::", "fences::"];

#[test]
fn the_front_end_librarys_tests_pass_where_memory_of_vulkan_can_be_mapped() {
    let Some((machine, _turn)) = prepared(|| TestMachine::prepare("venus_draws")) else {
        return;
    };
    let ran = machine
        .run(&[&MAPPING_TESTS[..], &["--nocapture"]].concat())
        .unwrap();
    println!("{}", ran.lines.join("\n"));
    assert_eq!(ran.ending, Ending::Status(0));
    let passed =
        |line: &String| line.starts_with("test result: ok.") && !line.contains(" 0 passed");
    assert!(ran.lines.iter().any(passed));
    let skipped = |line: &&String| line.contains("SKIPPED") || line.contains("no /dev/udmabuf");
    assert_eq!(ran.lines.iter().find(skipped), None);
}

/// What our program has drawn is right in the memory that it maps, and that is mapped as the device said:
/// cached, as software Vulkan's memory is.
#[track_caller]
fn assert_mapped(found: &Found) {
    let drawn = found.drawn.as_ref().expect("a picture");
    assert_eq!((drawn.wrong, drawn.first_wrong.as_deref()), (0, None));
    assert!(drawn.device.contains("Venus"), "{drawn:?}");
    let mapped = found.mapped.as_ref().expect("a mapping");
    assert_eq!(mapped.memory_type, MemoryType::WriteBack, "{mapped:?}");
    // In the device's region, where no range register changes what the page tables say.
    assert!(mapped.physical >= 1 << 32, "{mapped:?}");
    assert_eq!(mapped.listed.as_deref(), Some("write-back"));
}

#[test]
fn linux_finds_venus_and_is_refused_memory_that_cannot_be_mapped() {
    let wanted = Programs {
        info: true,
        ..Programs::default()
    };
    let Some((guest, _turn)) = prepared(|| Guest::prepare(wanted)) else {
        return;
    };
    let found = guest.run(&[]).unwrap();
    println!("{}", found.describe());
    let [(driver, name)] = &found.devices[..] else {
        panic!("{:?}", found.devices);
    };
    assert_eq!(driver, "venus");
    assert!(name.starts_with("Virtio-GPU Venus (llvmpipe"), "{name}");
    let [summary, whole, program] = &found.steps[..] else {
        panic!("{:?}", found.steps);
    };
    assert_eq!(
        (&summary.ran.ending, &whole.ran.ending),
        (&Ending::Status(0), &Ending::Status(0))
    );
    if Path::new("/dev/udmabuf").exists() {
        assert_mapped(&found);
    } else {
        assert_eq!(program.ran.ending, Ending::Status(1));
        assert_eq!(program.ran.lines, ["Mapping of a memory object has failed"]);
    }
}
