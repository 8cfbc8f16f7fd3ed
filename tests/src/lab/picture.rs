//! Pictures: read from PNG files, written to them, compared pixel by pixel.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use nosnoop_guest::pattern::{self, Size};
use nosnoop_guest::wire::Step;
use png::{BitDepth, ColorType, Decoder, Encoder, Transformations};

use super::{LabError, Result};

/// A picture of `0x00RRGGBB` pixels, row by row from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Width and height.
    pub size: Size,
    /// `width * height` pixels.
    pub pixels: Vec<u32>,
}

/// One wrong pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct WrongPixel {
    /// Column.
    pub x: u32,
    /// Row.
    pub y: u32,
    /// The colour it should have, `0x00RRGGBB`.
    pub expected: u32,
    /// The colour it has.
    pub found: u32,
}

/// How a picture compares with what was expected.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Comparison {
    /// How many pixels were expected.
    pub pixels: u64,
    /// How many of them are wrong; all of them when the size is.
    pub wrong: u64,
    /// The first wrong one.
    pub first: Option<WrongPixel>,
    /// The picture's width and height, when they are not the expected ones.
    pub wrong_size: Option<(u32, u32)>,
}

impl Comparison {
    /// Whether every pixel is right.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.wrong == 0
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((width, height)) = self.wrong_size {
            return write!(
                out,
                "the picture is {width}x{height}: all {} pixels wrong",
                self.wrong
            );
        }
        write!(out, "{} of {} pixels differ", self.wrong, self.pixels)?;
        if let Some(WrongPixel {
            x,
            y,
            expected,
            found,
        }) = self.first
        {
            write!(
                out,
                ", first at {x},{y}: {found:06x} instead of {expected:06x}"
            )?;
        }
        Ok(())
    }
}

impl Picture {
    /// The picture that the screen must show after `step`.
    #[must_use]
    pub fn expected(step: Step, size: Size) -> Self {
        let rows = 0..size.height;
        let pixels = rows
            .flat_map(|y| (0..size.width).map(move |x| pattern::expected(step, x, y, size)))
            .collect();
        Self { size, pixels }
    }

    /// Picture number `seed` of the blob task.
    #[must_use]
    pub fn numbered(size: Size, seed: u32) -> Self {
        let rows = 0..size.height;
        let pixels = rows
            .flat_map(|y| (0..size.width).map(move |x| pattern::pattern(x, y, size, seed)))
            .collect();
        Self { size, pixels }
    }

    /// A picture from rows of little-endian x8r8g8b8 pixels without gaps.
    #[must_use]
    pub fn from_xrgb(size: Size, bytes: &[u8]) -> Self {
        let pixels = bytes
            .chunks_exact(4)
            .map(|pixel| u32::from_le_bytes([pixel[0], pixel[1], pixel[2], 0]))
            .collect();
        Self { size, pixels }
    }

    /// Reads a PNG file with eight bits per channel; an alpha channel is ignored.
    ///
    /// # Errors
    /// When the file cannot be read or is no such picture.
    pub fn load(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(LabError::context(path.display()))?;
        let mut decoder = Decoder::new(BufReader::new(file));
        decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
        let mut reader = decoder
            .read_info()
            .map_err(LabError::context(path.display()))?;
        let length = reader
            .output_buffer_size()
            .ok_or_else(|| LabError::failed(format!("{}: too large", path.display())))?;
        let mut bytes = vec![0; length];
        let info = reader
            .next_frame(&mut bytes)
            .map_err(LabError::context(path.display()))?;
        let channels = match info.color_type {
            ColorType::Rgb => 3,
            ColorType::Rgba => 4,
            other => {
                let path = path.display();
                return Err(LabError::failed(format!("{path}: colour type {other:?}")));
            }
        };
        let pixels = bytes[..info.buffer_size()]
            .chunks_exact(channels)
            .map(|pixel| u32::from_be_bytes([0, pixel[0], pixel[1], pixel[2]]))
            .collect();
        Ok(Self {
            size: Size {
                width: info.width,
                height: info.height,
            },
            pixels,
        })
    }

    /// Writes a PNG file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = self
            .pixels
            .iter()
            .flat_map(|pixel| {
                let [_, red, green, blue] = pixel.to_be_bytes();
                [red, green, blue]
            })
            .collect::<Vec<_>>();
        let write = || -> std::result::Result<(), png::EncodingError> {
            let file = BufWriter::new(File::create(path)?);
            let mut encoder = Encoder::new(file, self.size.width, self.size.height);
            encoder.set_color(ColorType::Rgb);
            encoder.set_depth(BitDepth::Eight);
            let mut writer = encoder.write_header()?;
            writer.write_image_data(&bytes)?;
            writer.finish()
        };
        write().map_err(LabError::context(path.display()))
    }

    /// Compares with the expected picture.
    #[must_use]
    pub fn compare(&self, expected: &Self) -> Comparison {
        let pixels = expected.pixels.len() as u64;
        if self.size != expected.size {
            let wrong_size = Some((self.size.width, self.size.height));
            return Comparison {
                pixels,
                wrong: pixels,
                first: None,
                wrong_size,
            };
        }
        let mut wrong = 0;
        let mut first = None;
        let places = (0..self.size.height).flat_map(|y| (0..self.size.width).map(move |x| (x, y)));
        let pairs = self.pixels.iter().zip(&expected.pixels);
        for ((x, y), (&found, &expected)) in places.zip(pairs) {
            if found != expected {
                wrong += 1;
                first.get_or_insert(WrongPixel {
                    x,
                    y,
                    expected,
                    found,
                });
            }
        }
        Comparison {
            pixels,
            wrong,
            first,
            wrong_size: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        width: 33,
        height: 21,
    };

    #[test]
    fn a_file_holds_every_pixel() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.png");
        let picture = Picture::expected(Step::Mode, SIZE);
        picture.save(&path).unwrap();
        assert_eq!(Picture::load(&path).unwrap(), picture);
    }

    #[test]
    fn a_wrong_pixel_is_counted_and_named() {
        let expected = Picture::expected(Step::Flip, SIZE);
        assert!(expected.compare(&expected).is_exact());
        let mut picture = expected.clone();
        picture.pixels[33 * 2 + 5] ^= 1;
        picture.pixels[33 * 9] ^= 0x100;
        let comparison = picture.compare(&expected);
        assert_eq!(comparison.wrong, 2);
        let first = comparison.first.unwrap();
        assert_eq!((first.x, first.y), (5, 2));
        let other = Picture::expected(
            Step::Flip,
            Size {
                width: 21,
                height: 33,
            },
        );
        assert_eq!(other.compare(&expected).wrong, 33 * 21);
    }

    #[test]
    fn bytes_in_display_order_give_the_colour() {
        let size = Size {
            width: 1,
            height: 1,
        };
        let picture = Picture::from_xrgb(size, &[0x11, 0x22, 0x33, 0xff]);
        assert_eq!(picture.pixels, [0x33_2211]);
    }
}
