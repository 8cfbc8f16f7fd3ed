//! What OpenGL's programs write.

/// The renderers that eglinfo names, each with the platform before it, once.
pub(super) fn renderers(lines: &[String]) -> Vec<(String, String)> {
    let mut platform = String::new();
    let mut found = Vec::new();
    for line in lines {
        if let Some(name) = line.strip_suffix(" platform:") {
            platform = name.to_owned();
        }
        // "OpenGL core profile renderer: X", "OpenGL ES profile renderer: X".
        let renderer = line.split_once("profile renderer: ");
        if let Some((_, renderer)) = renderer {
            let pair = (platform.clone(), renderer.trim().to_owned());
            if !found.contains(&pair) {
                found.push(pair);
            }
        }
    }
    found
}

/// What glmark2 says that it draws with.
pub(super) fn glmark2_renderer(lines: &[String]) -> Option<String> {
    let line = lines.iter().find_map(|line| {
        let line = line.trim().strip_prefix("GL_RENDERER:")?;
        Some(line.trim().to_owned())
    });
    line.filter(|name| !name.is_empty())
}

/// Frames per second of the one scene that glmark2 has run. What it complains of may stand between the
/// scene's name and this.
pub(super) fn glmark2_rate(lines: &[String]) -> Option<f64> {
    lines.iter().find_map(|line| {
        let (_, rest) = line.split_once("FPS:")?;
        rest.split_whitespace().next()?.parse().ok()
    })
}

/// What glmark2 complains of, each thing once.
pub(super) fn glmark2_errors(lines: &[String]) -> Vec<String> {
    let mut errors = Vec::new();
    for line in lines {
        let error = line
            .split_once("Error: ")
            .map(|(_, error)| error.to_owned());
        if let Some(error) = error.filter(|error| !errors.contains(error)) {
            errors.push(error);
        }
    }
    errors
}

/// Frames per second that kmscube reports last.
pub(super) fn kmscube_rate(lines: &[String]) -> Option<f64> {
    lines.iter().rev().find_map(|line| {
        let (_, rest) = line.split_once("Rendered ")?;
        let (_, rate) = rest.split_once('(')?;
        rate.strip_suffix(" fps)")?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[&str]) -> Vec<String> {
        text.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn eglinfo_names_renderers_by_platform() {
        let text = lines(&[
            "GBM platform:",
            "EGL vendor string: Mesa Project",
            "OpenGL core profile renderer: virgl (LLVMPIPE)",
            "OpenGL ES profile renderer: virgl (LLVMPIPE)",
            "Surfaceless platform:",
            "OpenGL core profile renderer: llvmpipe",
        ]);
        let pair = |platform: &str, name: &str| (platform.to_owned(), name.to_owned());
        let expected = [
            pair("GBM", "virgl (LLVMPIPE)"),
            pair("Surfaceless", "llvmpipe"),
        ];
        assert_eq!(renderers(&text), expected);
    }

    #[test]
    fn rates_are_read() {
        let text = lines(&[
            "    GL_RENDERER:    virgl (X)",
            "[build] duration=2.0: FPS: 61 FrameTime: 16.394 ms",
            "                                  glmark2 Score: 61 ",
        ]);
        assert_eq!(glmark2_renderer(&text).as_deref(), Some("virgl (X)"));
        assert_eq!(glmark2_rate(&text), Some(61.0));
        assert_eq!(glmark2_rate(&lines(&["[build] Unsupported"])), None);
        let complaining = lines(&[
            "[build] duration=2.0:Error: no",
            "Error: no",
            " FPS: 9 FrameTime: 99.9 ms",
        ]);
        assert_eq!(glmark2_rate(&complaining), Some(9.0));
        assert_eq!(glmark2_errors(&complaining), ["no"]);
        let text = lines(&[
            "Rendered 30 frames in 2.000000 sec (15.000000 fps)",
            "Rendered 60 frames in 4.800000 sec (12.500000 fps)",
        ]);
        assert_eq!(kmscube_rate(&text), Some(12.5));
    }
}
