//! What is measured: one row of the table each.

use super::limits::Limit;

/// A picture's size that tables of this field use.
pub const XGA: (u32, u32) = (1024, 768);
/// The same for large ones.
pub const UHD: (u32, u32) = (3840, 2160);
/// Small damage, pixels.
pub const SMALL: (u32, u32) = (64, 64);
/// A page and more, bytes.
const BLOBS: [u64; 3] = [4 << 10, 1 << 20, 64 << 20];

/// A piece of work that is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// TRANSFER_TO_HOST_2D of one pixel, so many at once.
    Command {
        /// Commands in a batch.
        outstanding: usize,
        /// Whether each has a fence of its own.
        fenced: bool,
    },
    /// GET_DISPLAY_INFO, so many at once.
    DisplayInfo {
        /// Commands in a batch.
        outstanding: usize,
    },
    /// TRANSFER_TO_HOST_2D of a whole picture.
    Transfer {
        /// Width and height.
        size: (u32, u32),
        /// Whether its backing is single pages in no order.
        pages: bool,
    },
    /// RESOURCE_FLUSH, until it is answered.
    Flush(Damage),
    /// TRANSFER_TO_HOST_2D and RESOURCE_FLUSH, until both are answered.
    Update(Damage),
    /// The same, until the display has all the pixels.
    Frame(Damage),
    /// SET_SCANOUT_BLOB of the other of two guest blobs and RESOURCE_FLUSH, until both are answered.
    Flip((u32, u32)),
    /// Asking for an image (cross-domain), RESOURCE_CREATE_BLOB, RESOURCE_UNREF.
    Image((u32, u32)),
    /// RESOURCE_MAP_BLOB of so many bytes.
    Map(u64),
    /// RESOURCE_UNMAP_BLOB.
    Unmap(u64),
}

/// A part of a shown picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Width and height of the picture.
    pub picture: (u32, u32),
    /// Width and height of the part.
    pub part: (u32, u32),
}

impl Damage {
    fn whole(picture: (u32, u32)) -> Self {
        let part = picture;
        Self { picture, part }
    }

    fn small() -> Self {
        let (picture, part) = (XGA, SMALL);
        Self { picture, part }
    }

    /// Pixels of the part.
    #[must_use]
    pub fn pixels(self) -> u64 {
        u64::from(self.part.0) * u64::from(self.part.1)
    }
}

/// Which number of a sample stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// The median time of one: lone commands.
    Latency,
    /// How many a second: batches.
    Rate,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Case {
    /// A short name for `--only`.
    pub id: String,
    /// What it is, for people.
    pub title: String,
    /// The work.
    pub work: Work,
    /// What bounds it.
    pub limit: Option<Limit>,
}

impl Case {
    fn new(id: impl Into<String>, title: impl Into<String>, work: Work) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            work,
            limit: None,
        }
    }

    fn limited(mut self, limit: Limit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Which number of a sample stands for this row.
    #[must_use]
    pub fn speaks(&self) -> Speaks {
        match self.work {
            Work::Command { outstanding, .. } | Work::DisplayInfo { outstanding }
                if outstanding > 1 =>
            {
                Speaks::Rate
            }
            _ => Speaks::Latency,
        }
    }

    /// All rows in the order of the table.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![
            Self::new("command-1", "small command, one by one", command(1, false))
                .limited(Limit::Eventfd),
            Self::new(
                "command-64",
                "small command, 64 outstanding",
                command(64, false),
            ),
            Self::new(
                "fence-64",
                "fenced command, 64 outstanding",
                command(64, true),
            ),
            Self::new(
                "display-info-1",
                "GET_DISPLAY_INFO, one by one",
                Work::DisplayInfo { outstanding: 1 },
            )
            .limited(Limit::EventfdSocket),
            Self::new(
                "display-info-64",
                "GET_DISPLAY_INFO, 64 outstanding",
                Work::DisplayInfo { outstanding: 64 },
            ),
        ];
        let pictures = [("xga", XGA), ("uhd", UHD)];
        for (layout, pages) in [("", false), ("-pages", true)] {
            for (name, size) in pictures {
                let of = if pages { " of 4 KiB pages" } else { "" };
                let title = format!("transfer {}{of}", dimensions(size));
                let work = Work::Transfer { size, pages };
                let bytes = 4 * size.0 as usize * size.1 as usize;
                all.push(
                    Self::new(format!("transfer-{name}{layout}"), title, work)
                        .limited(Limit::Memcpy(bytes)),
                );
            }
        }
        let parts = [
            ("xga", Damage::whole(XGA)),
            ("uhd", Damage::whole(UHD)),
            ("small", Damage::small()),
        ];
        for (name, damage) in parts {
            let title = format!("flush {}", part(damage));
            all.push(Self::new(
                format!("flush-{name}"),
                title,
                Work::Flush(damage),
            ));
        }
        for (name, damage) in parts {
            let title = format!("transfer and flush {}", part(damage));
            all.push(Self::new(
                format!("update-{name}"),
                title,
                Work::Update(damage),
            ));
        }
        for (name, damage) in parts {
            let title = format!("transfer and flush {} until displayed", part(damage));
            let (width, height) = damage.part;
            all.push(
                Self::new(format!("frame-{name}"), title, Work::Frame(damage))
                    .limited(Limit::Display(width, height)),
            );
        }
        for (name, size) in pictures {
            let title = format!("flip of guest blobs {}", dimensions(size));
            all.push(Self::new(format!("flip-{name}"), title, Work::Flip(size)));
        }
        let title = format!("image {}: ask, create, unref", dimensions(XGA));
        all.push(Self::new("image", title, Work::Image(XGA)));
        for bytes in BLOBS {
            let size = super::size(bytes);
            all.push(
                Self::new(
                    map_id("map", bytes),
                    format!("map a blob of {size}"),
                    Work::Map(bytes),
                )
                .limited(Limit::EventfdMap(bytes)),
            );
            let title = format!("unmap a blob of {size}");
            all.push(
                Self::new(map_id("unmap", bytes), title, Work::Unmap(bytes))
                    .limited(Limit::EventfdUnmap(bytes)),
            );
        }
        all
    }
}

/// What is measured of the machine alone, beside the limits of the rows.
#[must_use]
pub fn machine_limits() -> Vec<Limit> {
    let mut limits = vec![Limit::Eventfd, Limit::Socket, Limit::EventfdSocket];
    for bytes in BLOBS {
        limits.extend([
            Limit::MmapCall(bytes),
            Limit::MunmapCall(bytes),
            Limit::Map(bytes),
            Limit::Unmap(bytes),
        ]);
    }
    limits
}

fn command(outstanding: usize, fenced: bool) -> Work {
    Work::Command {
        outstanding,
        fenced,
    }
}

fn dimensions((width, height): (u32, u32)) -> String {
    format!("{width}x{height}")
}

fn part(damage: Damage) -> String {
    if damage.part == damage.picture {
        return dimensions(damage.part);
    }
    format!(
        "{} of {}",
        dimensions(damage.part),
        dimensions(damage.picture)
    )
}

fn map_id(what: &str, bytes: u64) -> String {
    format!(
        "{what}-{}",
        super::size(bytes).replace(" KiB", "k").replace(" MiB", "m")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_need_no_quoting() {
        let all = Case::all();
        for (at, case) in all.iter().enumerate() {
            assert!(
                all[..at].iter().all(|other| other.id != case.id),
                "{}",
                case.id
            );
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            assert!(case.id.chars().all(plain), "{}", case.id);
        }
        assert!(all.iter().any(|case| case.id == "unmap-64m"));
    }
}
