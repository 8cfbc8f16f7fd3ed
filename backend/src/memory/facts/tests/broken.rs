//! Hosts whose files are gone, cut, too large or garbage: what is found is what the whole host
//! would give, or unknown.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{HOSTS, answers, folder, probe, sources};

/// A copy of a recorded host that may be broken.
struct Copy {
    host: &'static str,
    root: TempDir,
    /// Files and links, from the root on.
    files: Vec<PathBuf>,
    links: Vec<PathBuf>,
}

impl Copy {
    fn of(host: &'static str) -> Self {
        let mut copy = Self {
            host,
            root: TempDir::new().unwrap(),
            files: Vec::new(),
            links: Vec::new(),
        };
        copy.add(&folder(host).join("root"), Path::new(""));
        copy.files.sort();
        copy
    }

    fn add(&mut self, from: &Path, path: &Path) {
        for entry in fs::read_dir(from.join(path)).unwrap() {
            let entry = entry.unwrap();
            let path = path.join(entry.file_name());
            let to = self.at(&path);
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                fs::create_dir(&to).unwrap();
                self.add(from, &path);
            } else if kind.is_symlink() {
                symlink(fs::read_link(entry.path()).unwrap(), to).unwrap();
                self.links.push(path);
            } else {
                fs::copy(entry.path(), to).unwrap();
                self.files.push(path);
            }
        }
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.root.path().join(path)
    }

    fn answers(&self) -> BTreeMap<String, String> {
        answers(&probe(self.root.path(), self.host))
    }
}

/// Nothing is found that is not so: each answer is that of the whole host, or unknown.
fn assert_no_lies(
    whole: &BTreeMap<String, String>,
    found: &BTreeMap<String, String>,
    what: &dyn Fn() -> String,
) {
    for (name, answer) in found {
        // Which node a GPU goes by is no answer.
        assert!(
            name.ends_with(".node") || answer == "unknown" || whole.get(name) == Some(answer),
            "{}: {name} = {answer}, but it is {:?}",
            what(),
            whole.get(name)
        );
    }
}

#[test]
fn files_that_are_cut_give_the_same_answers_or_none() {
    for host in HOSTS {
        let copy = Copy::of(host);
        let whole = copy.answers();
        for path in &copy.files {
            let bytes = fs::read(copy.at(path)).unwrap();
            // Every length of a short file, else some, with those around the end.
            let step = (bytes.len() / 20).max(1);
            let lengths = (0..bytes.len()).step_by(step).chain([63, 64, 65]);
            for length in lengths.chain(bytes.len().checked_sub(1)) {
                fs::write(copy.at(path), &bytes[..length.min(bytes.len())]).unwrap();
                let what = || format!("{host}: {} cut to {length}", path.display());
                assert_no_lies(&whole, &copy.answers(), &what);
            }
            fs::write(copy.at(path), bytes).unwrap();
        }
        assert_eq!(copy.answers(), whole, "{host}");
    }
}

/// `/dev/udmabuf` may be missing on purpose: that it is not there is an answer.
#[test]
fn files_that_vanish_or_cannot_be_read_give_the_same_answers_or_none() {
    for host in HOSTS {
        let copy = Copy::of(host);
        let whole = copy.answers();
        for path in copy.files.iter().chain(&copy.links) {
            let kept = copy.at(Path::new("kept"));
            fs::rename(copy.at(path), &kept).unwrap();
            let presence = path.ends_with("dev/udmabuf");
            if !presence {
                let what = || format!("{host}: without {}", path.display());
                assert_no_lies(&whole, &copy.answers(), &what);
            }
            // A folder in its place: reading it fails even for root.
            fs::create_dir(copy.at(path)).unwrap();
            if !presence {
                let what = || format!("{host}: a folder for {}", path.display());
                assert_no_lies(&whole, &copy.answers(), &what);
            }
            fs::remove_dir(copy.at(path)).unwrap();
            // A link that leads to itself.
            symlink(path.file_name().unwrap(), copy.at(path)).unwrap();
            if !presence {
                let what = || format!("{host}: a loop for {}", path.display());
                assert_no_lies(&whole, &copy.answers(), &what);
            }
            fs::remove_file(copy.at(path)).unwrap();
            fs::rename(&kept, copy.at(path)).unwrap();
        }
        assert_eq!(copy.answers(), whole, "{host}");
    }
}

#[test]
fn files_without_an_end_are_not_read_to_it() {
    for host in ["intel-no-llc", "amd-v1-iommu", "arm64-no-fwb"] {
        let copy = Copy::of(host);
        let whole = copy.answers();
        let begin = Instant::now();
        for path in &copy.files {
            let kept = copy.at(Path::new("kept"));
            fs::rename(copy.at(path), &kept).unwrap();
            // 64 GiB of zeros that take no space.
            File::create(copy.at(path))
                .unwrap()
                .set_len(64 << 30)
                .unwrap();
            let what = || format!("{host}: {} without an end", path.display());
            assert_no_lies(&whole, &copy.answers(), &what);
            fs::remove_file(copy.at(path)).unwrap();
            fs::rename(&kept, copy.at(path)).unwrap();
        }
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(20), "{host}: took {took:?}");
    }
}

#[test]
fn links_do_not_lead_out_of_the_root() {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("arch"), "x86_64\n").unwrap();
    for target in [
        outside.path().join("arch"),
        Path::new("../../../../../../../..")
            .join(outside.path().strip_prefix("/").unwrap())
            .join("arch"),
        PathBuf::from("/proc/self/root/proc/sys/kernel/arch"),
    ] {
        let copy = Copy::of("amd");
        let path = copy.at(Path::new("proc/sys/kernel/arch"));
        fs::remove_file(&path).unwrap();
        symlink(&target, &path).unwrap();
        assert_eq!(
            copy.answers()["cpu.arch"],
            "unknown",
            "{}",
            target.display()
        );
    }
    // One that stays inside is followed.
    let copy = Copy::of("amd");
    let path = copy.at(Path::new("proc/sys/kernel/arch"));
    fs::rename(&path, copy.at(Path::new("arch"))).unwrap();
    symlink("/arch", &path).unwrap();
    assert_eq!(copy.answers()["cpu.arch"], "x86");
}

#[test]
fn a_pipe_in_place_of_a_file_does_not_hang_the_probe() {
    let copy = Copy::of("amd");
    let path = copy.at(Path::new("proc/cpuinfo"));
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let (done, probed) = mpsc::channel();
    thread::spawn(move || done.send(copy.answers()).unwrap());
    let answers = probed.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(answers["cpu.vendor"], "unknown");
}

/// Bytes that look like what the kernel writes more often than chance would have it.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..300);
    let text = "[ -~\u{1b}\u{7f}é]{0,80}\n?".prop_map(String::into_bytes);
    let likely = prop::sample::select(vec![
        &b"flags\t\t: ss hypervisor\nvendor_id\t: GenuineIntel\n"[..],
        b"flags\n:\n",
        b"99999999999999999999999999\n",
        b"0xffff\n",
        b"0x80\x1b[31m\n",
        b"18446744073709551616.1\n",
        b"6,0,0,-;Run /init as init process\n",
        b"6,18446744073709551615,0,-;x\n6,0,0,-;x\n",
        b"6;;;;\n,,,\n",
        b"identity\n",
        b"Y\n",
        b"Y\n\n",
    ])
    .prop_map(<[u8]>::to_vec);
    prop_oneof![noise, text, likely]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The probe ends, and what it says can be shown on a terminal, one line each.
    #[test]
    fn garbage_never_panics_and_is_never_printed(
        host in prop::sample::select(HOSTS.to_vec()),
        contents in prop::collection::vec(prop::option::weighted(0.7, garbage()), 32),
    ) {
        let copy = Copy::of(host);
        for (path, bytes) in copy.files.iter().zip(contents.iter().cycle()) {
            if let Some(bytes) = bytes {
                fs::write(copy.at(path), bytes).unwrap();
            }
        }
        let facts = probe(copy.root.path(), host);
        for (name, text) in sources(&facts).into_iter().chain(answers(&facts)) {
            prop_assert!(
                text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.len() < 400,
                "{}: {:?}", name, text
            );
        }
    }

    /// Configuration space is made of offsets that the device chooses.
    #[test]
    fn any_configuration_space_is_read_to_an_end(
        mut bytes in prop::collection::vec(any::<u8>(), 0..=256),
        first in any::<u8>(),
    ) {
        // Mostly one that says that it has capabilities.
        if let (Some(_), true) = (bytes.get(0x34), first >= 16) {
            bytes[6] |= 0x10;
            bytes[0x34] = first;
        }
        let copy = Copy::of("amd");
        let path = copy.files.iter().find(|path| path.ends_with("config")).unwrap();
        fs::write(copy.at(path), &bytes).unwrap();
        let found = copy.answers();
        // A bit that is found is one that is there.
        if found["gpus.0.no_snoop"] != "unknown" {
            prop_assert!(bytes.windows(10).any(|w| w[0] == 0x10
                && (w[9] & 8 != 0) == (found["gpus.0.no_snoop"] == "true")));
        }
    }
}
