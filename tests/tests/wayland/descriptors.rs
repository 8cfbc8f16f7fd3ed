//! Memory and pipes through the channel.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nosnoop_tests::frontend::cross_domain::{
    self, ID_BLOB, ID_READ_PIPE, ID_WRITE_PIPE, READ_PIPES, host_blob,
};
use nosnoop_tests::frontend::memory::PAGE;
use nosnoop_tests::frontend::request::submit_3d;
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::{ImageContext, ImageRequest, Record, Result};
use rustix::fs::{MemfdFlags, SealFlags};

use super::compositor::{RING, connected};

/// A file in memory with this in it.
fn memfd(bytes: &[u8]) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create(c"test", flags).unwrap());
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn a_blob_is_the_same_memory_on_both_sides() -> Result<()> {
    let (_compositor, mut rig, channel, mut client) = connected()?;
    // The context's own image, and one of another context.
    let images = ImageContext {
        id: channel.id,
        ring: RING,
        memory: channel.query,
    };
    let info = images.image(&mut rig.gpu, ImageRequest::xrgb(64, 64))?;
    images.create_blob(&mut rig.gpu, 200, &info)?;
    let others = ImageContext::new(&mut rig.gpu, 2, 300)?;
    let other = others.image(&mut rig.gpu, ImageRequest::xrgb(32, 32))?;
    others.create_blob(&mut rig.gpu, 201, &other)?;
    let foreign = submit_3d(1, &cross_domain::send(b"x", &[(201, ID_BLOB)]));
    assert_eq!(rig.gpu.answer(&foreign)?, resp::ERR_INVALID_RESOURCE_ID);
    for resource in [200, 201] {
        rig.gpu.attach_resource(1, resource)?;
    }
    rig.gpu.map_blob(200, 0)?;
    rig.shmem().write(100, b"from the guest");
    let ids = [(201, ID_BLOB), (200, ID_BLOB)];
    channel.send(&mut rig.gpu, b"two", &ids)?;
    let (bytes, files) = client.receive();
    assert_eq!((&bytes[..], files.len()), (&b"two"[..], 2));
    let files: Vec<File> = files.into_iter().map(File::from).collect();
    assert_eq!(files[0].metadata().unwrap().len(), other.size);
    assert_eq!(files[1].metadata().unwrap().len(), info.size);
    let mut read = [0; 14];
    files[1].read_exact_at(&mut read, 100).unwrap();
    assert_eq!(&read, b"from the guest");
    files[1].write_all_at(b"from outside", 5000).unwrap();
    assert_eq!(rig.shmem().read(5000, 12), b"from outside");
    rig.finish()
}

#[test]
fn a_file_of_the_compositor_becomes_a_blob_once() -> Result<()> {
    let (_compositor, mut rig, mut channel, mut client) = connected()?;
    let text: Vec<u8> = (0..70_001_u32).map(|n| (n % 253) as u8).collect();
    let sealed = memfd(&text);
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW;
    rustix::fs::fcntl_add_seals(&sealed, seals).unwrap();
    let mut on_disk = tempfile::tempfile().unwrap();
    on_disk.write_all(b"a small one").unwrap();
    client.send_with(b"keymap", &[sealed.as_fd(), on_disk.as_fd()]);
    let (bytes, ids) = channel.receive(&mut rig.gpu)?;
    assert_eq!(bytes, b"keymap");
    let [(map, ID_BLOB, map_size), (small, ID_BLOB, small_size)] = ids[..] else {
        panic!("{ids:?}");
    };
    // Whole pages, as drivers ask for those.
    assert_eq!((map_size, small_size), (18 * 4096, 4096));
    for size in [0, u64::from(map_size) - PAGE, u64::from(map_size) + PAGE] {
        let wrong = rig.gpu.answer(&host_blob(1, 200, map.into(), size))?;
        assert_eq!(wrong, resp::ERR_INVALID_PARAMETER, "{size}");
    }
    let make = host_blob(1, 200, map.into(), map_size.into());
    rig.gpu.command("RESOURCE_CREATE_BLOB", &make)?;
    let again = host_blob(1, 201, map.into(), map_size.into());
    assert_eq!(rig.gpu.answer(&again)?, resp::ERR_INVALID_PARAMETER);
    let make = host_blob(1, 201, small.into(), small_size.into());
    rig.gpu.command("RESOURCE_CREATE_BLOB", &make)?;
    // The guest writes to its copy, whatever the file allows.
    assert_eq!(rig.gpu.map_blob(200, 0)?, 1);
    assert_eq!(rig.shmem().read(0, text.len()), text);
    rig.shmem().write(0, b"changed");
    let mut first = [0; 7];
    sealed.read_exact_at(&mut first, 0).unwrap();
    assert_eq!(first[..], text[..7]);
    rig.gpu.map_blob(201, 1 << 20)?;
    assert_eq!(rig.shmem().read(1 << 20, 12), b"a small one\0");
    rig.finish()
}

#[test]
fn what_a_guest_does_not_collect_is_bounded() -> Result<()> {
    let (_compositor, mut rig, mut channel, mut client) = connected()?;
    let file = memfd(b"x");
    for _ in 0..5 {
        client.send_with(b"m", &[file.as_fd(); 20]);
    }
    let mut kinds = Vec::new();
    while kinds.len() < 100 {
        let (_, ids) = channel.receive(&mut rig.gpu)?;
        kinds.extend(ids.into_iter().map(|(_, kind, _)| kind));
    }
    let (blobs, nothing) = kinds.split_at(28);
    assert!(blobs.iter().all(|kind| *kind == ID_BLOB), "{kinds:?}");
    assert!(nothing.iter().all(|kind| *kind == ID_WRITE_PIPE));
    // One that takes more memory than the guest may have.
    rig.finish()?;
    let compositor = super::compositor::Compositor::new();
    let path = compositor.path.to_str().unwrap();
    let arguments = ["--wayland-socket", path, "--max-hostmem", "64K"];
    let mut rig = nosnoop_tests::frontend::Rig::host_blobs(&arguments)?;
    let mut channel = nosnoop_tests::frontend::Channel::new(&mut rig.gpu, 1, RING)?;
    let mut client = compositor.accept();
    let large = memfd(&[1; 40_000]);
    client.send_with(b"m", &[large.as_fd(), large.as_fd()]);
    let (_, ids) = channel.receive(&mut rig.gpu)?;
    assert_eq!((ids[0].1, ids[1].1), (ID_BLOB, ID_WRITE_PIPE));
    rig.finish()
}

#[test]
fn a_pipe_that_the_guest_reads_ends_when_its_writer_hangs_up() -> Result<()> {
    let (_compositor, mut rig, mut channel, mut client) = connected()?;
    let pipe = READ_PIPES + 1;
    let send = cross_domain::send(b"paste", &[(pipe, ID_READ_PIPE)]);
    rig.gpu.submit_3d(1, &send)?;
    let taken = rig.gpu.answer(&submit_3d(1, &send))?;
    assert_eq!(taken, resp::ERR_INVALID_PARAMETER);
    let (bytes, mut files) = client.receive();
    assert_eq!((&bytes[..], files.len()), (&b"paste"[..], 1));
    let mut writer = File::from(files.remove(0));
    assert!(channel.is_quiet(&mut rig.gpu)?);
    let text: Vec<u8> = (0..9000_u32).map(|n| (n % 249) as u8).collect();
    writer.write_all(&text).unwrap();
    drop(writer);
    let mut received = Vec::new();
    loop {
        match channel.event(&mut rig.gpu)? {
            Record::Read(id, bytes, false) if id == pipe => received.extend(bytes),
            Record::Read(id, bytes, true) if id == pipe => {
                assert_eq!(bytes, b"");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received, text);
    assert!(channel.is_quiet(&mut rig.gpu)?);
    // Its number is free again; a message comes between.
    rig.gpu.submit_3d(1, &send)?;
    client.send(b"message");
    assert_eq!(channel.receive(&mut rig.gpu)?.0, b"message");
    rig.finish()
}

#[test]
fn a_pipe_that_the_guest_writes_ends_when_it_hangs_up() -> Result<()> {
    let (_compositor, mut rig, mut channel, mut client) = connected()?;
    let (mut reader, writer) = std::io::pipe().unwrap();
    client.send_with(b"copy", &[writer.as_fd()]);
    drop(writer);
    let (_, ids) = channel.receive(&mut rig.gpu)?;
    let [(pipe, ID_WRITE_PIPE, 0)] = ids[..] else {
        panic!("{ids:?}");
    };
    rig.gpu
        .submit_3d(1, &cross_domain::write(pipe, b"some", false))?;
    rig.gpu
        .submit_3d(1, &cross_domain::write(pipe, b" text", true))?;
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "some text");
    let late = submit_3d(1, &cross_domain::write(pipe, b"x", false));
    assert_eq!(rig.gpu.answer(&late)?, resp::ERR_INVALID_PARAMETER);
    rig.finish()
}

/// The guest's commands go on; what the reader gets has no gap.
#[test]
fn a_full_pipe_stops_nothing() -> Result<()> {
    let (_compositor, mut rig, mut channel, mut client) = connected()?;
    let ends: Vec<_> = (0..2).map(|_| std::io::pipe().unwrap()).collect();
    client.send_with(b"copy", &[ends[0].1.as_fd(), ends[1].1.as_fd()]);
    let mut readers: Vec<_> = ends.into_iter().map(|(reader, _)| reader).collect();
    let (_, ids) = channel.receive(&mut rig.gpu)?;
    let piece = |n: usize| vec![n as u8; 32_000];
    let mut count = 0;
    let refused = loop {
        let write = cross_domain::write(ids[0].0, &piece(count), false);
        let answer = rig.gpu.answer(&submit_3d(1, &write))?;
        if answer != resp::OK_NODATA {
            break answer;
        }
        count += 1;
        assert!(count < 100);
    };
    assert_eq!(refused, resp::ERR_OUT_OF_MEMORY);
    assert!((8..12).contains(&count), "{count}");
    // It has been closed: what was in the kernel's pipe comes, and then the end.
    let mut got = Vec::new();
    readers[0].read_to_end(&mut got).unwrap();
    let sent: Vec<u8> = (0..count).flat_map(piece).collect();
    assert!(got.len() >= 32_000 && got == sent[..got.len()]);
    // The other one is late, but reads in the end: all of it comes, though the guest has hung up.
    for n in 0..9 {
        let write = cross_domain::write(ids[1].0, &piece(n), n == 8);
        rig.gpu.submit_3d(1, &write)?;
    }
    let mut got = Vec::new();
    readers[1].read_to_end(&mut got).unwrap();
    assert!(got == (0..9).flat_map(piece).collect::<Vec<u8>>());
    rig.finish()
}

/// Sockets, folders, pipes that nobody can write, files without a byte or with too many.
#[test]
fn what_cannot_be_passed_on_is_a_pipe_that_nobody_reads() -> Result<()> {
    let (_compositor, mut rig, mut channel, mut client) = connected()?;
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let folder = File::open("/").unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let empty = memfd(b"");
    let huge = memfd(b"");
    huge.set_len((16 << 20) + 1).unwrap();
    let good = memfd(b"good");
    let files = [
        socket.as_fd(),
        folder.as_fd(),
        reader.as_fd(),
        empty.as_fd(),
        huge.as_fd(),
        good.as_fd(),
    ];
    client.send_with(b"odd", &files);
    let (bytes, ids) = channel.receive(&mut rig.gpu)?;
    assert_eq!(bytes, b"odd");
    let kinds: Vec<_> = ids.iter().map(|(_, kind, _)| *kind).collect();
    assert_eq!(kinds, [4, 4, 4, 4, 4, 1]);
    let write = submit_3d(1, &cross_domain::write(ids[0].0, b"x", true));
    assert_eq!(rig.gpu.answer(&write)?, resp::ERR_INVALID_PARAMETER);
    channel.send(&mut rig.gpu, b"next", &[])?;
    assert_eq!(client.read(4), b"next");
    rig.finish()
}
