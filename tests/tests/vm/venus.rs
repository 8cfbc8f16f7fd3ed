//! Vulkan by Venus on software Mesa, in machines that have udmabuf.

use nosnoop_guest::wire::commands::Ending;
use nosnoop_tests::lab::venus::TestMachine;

use super::*;

#[test]
fn the_front_end_librarys_venus_tests_pass_where_memory_can_be_mapped() {
    let Some((machine, _turn)) = prepared(|| TestMachine::prepare("venus")) else {
        return;
    };
    let ran = machine.run(&["--nocapture"]).unwrap();
    println!("{}", ran.lines.join("\n"));
    assert_eq!(ran.ending, Ending::Status(0));
    assert!(
        ran.lines
            .iter()
            .any(|line| line.starts_with("test result: ok."))
    );
    let skipped = |line: &&String| line.starts_with("SKIPPED");
    assert_eq!(ran.lines.iter().find(skipped), None);
}
