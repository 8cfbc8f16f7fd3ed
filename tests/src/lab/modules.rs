//! Kernel modules: where they are, what they depend on, their images unpacked.
//!
//! Names and dependencies come from the modules themselves (`depends=` in their information
//! section), not from the files that depmod writes: those are absent where no package scripts ran.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::root::Kernel;
use super::{LabError, Result};

/// One module, ready to be loaded.
#[derive(Debug)]
pub(super) struct Module {
    /// Its name as the kernel writes it, with underscores.
    pub(super) name: String,
    /// The ELF image, uncompressed.
    pub(super) image: Vec<u8>,
}

/// The modules of one kernel.
#[derive(Debug)]
pub(super) struct Modules {
    files: HashMap<String, PathBuf>,
    builtin: BTreeSet<String>,
    release: String,
}

/// The module name in a file name, or `None` for other files.
fn module_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let (name, rest) = name.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst").then(|| name.replace('-', "_"))
}

impl Modules {
    /// Looks at all modules of `kernel`.
    pub(super) fn of(kernel: &Kernel) -> Result<Self> {
        let mut files = HashMap::new();
        let mut folders = vec![kernel.modules.clone()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).map_err(LabError::context(folder.display()))?;
            for entry in entries {
                let entry = entry.map_err(LabError::context(folder.display()))?;
                let kind = entry
                    .file_type()
                    .map_err(LabError::context(folder.display()))?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if let Some(name) = module_name(&entry.path()) {
                    files.insert(name, entry.path());
                }
            }
        }
        let builtin = kernel.modules.join("modules.builtin");
        let builtin = fs::read_to_string(&builtin).map_err(LabError::context(builtin.display()))?;
        Ok(Self {
            files,
            builtin: builtin
                .lines()
                .filter_map(|line| module_name(Path::new(line)))
                .collect(),
            release: kernel.release.clone(),
        })
    }

    /// The modules of those names and all they depend on, dependencies first.
    pub(super) fn closure(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        let mut done = BTreeSet::new();
        let mut order = Vec::new();
        for name in wanted {
            self.add(name, &mut done, &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, done: &mut BTreeSet<String>, order: &mut Vec<Module>) -> Result<()> {
        if self.builtin.contains(name) || !done.insert(name.to_owned()) {
            return Ok(());
        }
        let file = self.files.get(name).ok_or_else(|| {
            LabError::failed(format!("kernel {} has no module {name}", self.release))
        })?;
        let image = unpack(file)?;
        for dependency in depends(&image) {
            self.add(&dependency, done, order)?;
        }
        order.push(Module {
            name: name.to_owned(),
            image,
        });
        Ok(())
    }
}

/// The module's ELF image.
fn unpack(file: &Path) -> Result<Vec<u8>> {
    let packed = fs::read(file).map_err(LabError::context(file.display()))?;
    let extension = file.extension().and_then(|extension| extension.to_str());
    let mut image = Vec::new();
    match extension {
        Some("xz") => lzma_rs::xz_decompress(&mut packed.as_slice(), &mut image)
            .map_err(|error| LabError::failed(format!("{}: {error:?}", file.display())))?,
        Some("zst") => {
            let mut decoder = ruzstd::decoding::StreamingDecoder::new(packed.as_slice())
                .map_err(LabError::context(file.display()))?;
            decoder
                .read_to_end(&mut image)
                .map_err(LabError::context(file.display()))?;
        }
        _ => return Ok(packed),
    }
    Ok(image)
}

/// The names in the image's `depends=` entry.
fn depends(image: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = image.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = image[at + KEY.len()..]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(folder: &Path) -> Kernel {
        Kernel {
            image: PathBuf::new(),
            modules: folder.to_owned(),
            release: "1.2.3".to_owned(),
        }
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, data: &[u8]| fs::write(folder.path().join(name), data).unwrap();
        write("modules.builtin", b"kernel/drivers/virtio/virtio-pci.ko\n");
        write(
            "virtio-gpu.ko",
            b"\x7fELF\0license=x\0depends=drm,virtio-dma-buf,virtio_pci\0name=y\0",
        );
        write("drm.ko", b"\0depends=\0");
        write("virtio_dma_buf.ko", b"\0depends=drm\0");
        let modules = Modules::of(&kernel(folder.path())).unwrap();
        let names = modules
            .closure(&["virtio_pci", "virtio_gpu"])
            .unwrap()
            .into_iter()
            .map(|module| module.name)
            .collect::<Vec<_>>();
        assert_eq!(names, ["drm", "virtio_dma_buf", "virtio_gpu"]);
        let error = modules.closure(&["vgem"]).unwrap_err();
        assert_eq!(error.to_string(), "kernel 1.2.3 has no module vgem");
    }
}
