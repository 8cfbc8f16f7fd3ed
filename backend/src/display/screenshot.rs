//! Pictures of the screens as PNG files.

use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nosnoop_protocol::geometry::Size;
use png::{BitDepth, ColorType, Compression, Encoder};

use super::link::Slots;

/// Writes one `scanout-N.png` for each screen that is on.
///
/// # Errors
/// A file cannot be written, or there is no memory for a copy.
pub(super) fn write_all(slots: &Slots, dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for (id, slot) in slots.iter() {
        if slot.screen().is_shared() {
            log::warn!(
                "no screenshot of output {id}: the display has its pixels in a dma-buf; start without \
                 --dmabuf-scanout to have one"
            );
            continue;
        }
        // A copy, so that encoding and the file system do not hold up the guest.
        let copy = slot.screen().to_rgb();
        let copy = copy.map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
        let Some((size, rgb)) = copy else { continue };
        let path = dir.join(format!("scanout-{id}.png"));
        write(size, &rgb, dir, &path)?;
        paths.push(path);
    }
    Ok(paths)
}

/// Writes under another name first: who watches for the file never sees half of it.
fn write(size: Size, rgb: &[u8], dir: &Path, path: &Path) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(".scanout-")
        // As any new file: the umask decides.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(dir)?;
    let mut out = BufWriter::new(file.as_file_mut());
    let mut encoder = Encoder::new(&mut out, size.width, size.height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(rgb)?;
    writer.finish()?;
    out.flush()?;
    drop(out);
    file.persist(path)?;
    Ok(())
}
