//! The picture that is drawn, as the processor computes it.

/// Width and height in pixels: small, as pictures travel over a serial line.
pub(crate) const SIZE: [u32; 2] = [160, 120];

/// What is around the triangle: red, green, blue, alpha.
pub(crate) const BACKGROUND: [u8; 4] = [64, 32, 96, 255];

/// The corners of `triangle.wgsl`, in pixels.
const CORNERS: [[f32; 2]; 3] = [[20.0, 15.0], [140.0, 15.0], [80.0, 105.0]];

/// How far a colour may be off: interpolation is not exact to the bit.
const TOLERANCE: u8 = 2;

/// Pixels closer to an edge than this may be on either side of it.
const EDGE: f32 = 1.0;

/// What a pixel is to be: one colour, or anything, on an edge.
fn expected(x: u32, y: u32) -> Option<[u8; 4]> {
    let point = [x as f32 + 0.5, y as f32 + 0.5];
    let [a, b, c] = CORNERS;
    let area = cross(a, b, c);
    // The share of each corner, and the distance to the edge across from it.
    let edges = [(b, c), (c, a), (a, b)];
    let shares = edges.map(|(from, to)| cross(from, to, point) / area);
    let distances = edges.map(|(from, to)| cross(from, to, point) / length(from, to));
    let nearest = distances.into_iter().fold(f32::INFINITY, f32::min);
    if nearest < -EDGE {
        return Some(BACKGROUND);
    }
    let [red, green, blue] = shares.map(|share| (share * 255.0).round() as u8);
    (nearest > EDGE).then_some([red, green, blue, 255])
}

/// Twice the area of a triangle; negative if its corners go round the other way.
fn cross([ax, ay]: [f32; 2], [bx, by]: [f32; 2], [cx, cy]: [f32; 2]) -> f32 {
    (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
}

fn length([ax, ay]: [f32; 2], [bx, by]: [f32; 2]) -> f32 {
    (bx - ax).hypot(by - ay)
}

/// How many pixels are wrong, and what is wrong with the first.
pub(crate) fn check(bytes: &[u8]) -> (u32, Option<String>) {
    let [width, height] = SIZE;
    let all = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let mut wrong = 0;
    let mut first = None;
    for ((x, y), pixel) in all.zip(bytes.chunks_exact(4)) {
        let Some(expected) = expected(x, y) else {
            continue;
        };
        let near = |(is, wanted): (&u8, u8)| is.abs_diff(wanted) <= TOLERANCE;
        if !pixel.iter().zip(expected).all(near) {
            wrong += 1;
            first.get_or_insert_with(|| format!("({x}, {y}) is {pixel:?}, not {expected:?}"));
        }
    }
    (wrong, first)
}

/// The picture as a PNG file.
pub(crate) fn png(bytes: &[u8]) -> Result<Vec<u8>, png::EncodingError> {
    let [width, height] = SIZE;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bytes)?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn() -> Vec<u8> {
        let [width, height] = SIZE;
        let all = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        all.flat_map(|(x, y)| expected(x, y).unwrap_or_default())
            .collect()
    }

    #[test]
    fn a_wrong_pixel_shows_but_not_on_an_edge() {
        let mut bytes = drawn();
        assert_eq!(check(&bytes), (0, None));
        let at = |x: usize, y: usize| 4 * (160 * y + x);
        // The middle of an edge.
        bytes[at(80, 15)] ^= 0xff;
        assert_eq!(check(&bytes).0, 0);
        bytes[at(80, 50)] ^= 0xff;
        bytes[at(2, 3)] ^= 0x10;
        let (wrong, first) = check(&bytes);
        assert_eq!(wrong, 2);
        assert!(first.unwrap().starts_with("(2, 3) is [80, 32, 96, 255]"));
    }

    #[test]
    fn colours_are_those_of_the_corners() {
        assert_eq!(expected(0, 0), Some(BACKGROUND));
        let [red, green, blue, _] = expected(80, 45).unwrap();
        assert!(red.abs_diff(85) < 3 && green.abs_diff(85) < 3 && blue.abs_diff(85) < 3);
        let near_first = expected(24, 18).unwrap();
        assert!(near_first[0] > 230, "{near_first:?}");
    }
}
