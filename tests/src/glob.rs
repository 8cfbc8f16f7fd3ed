//! Patterns for names on command lines.

/// Whether a name matches a pattern in which `*` is any text and `?` any character.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => name.is_empty(),
        Some('*') => {
            let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.into_iter()
                .any(|at| matches(rest.as_str(), &name[at..]))
        }
        Some(wanted) => {
            let mut name = name.chars();
            let fits = name.next().is_some_and(|c| wanted == '?' || c == wanted);
            fits && matches(rest.as_str(), name.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name) in [
            ("map-4k", "map-4k"),
            ("*", ""),
            ("map-*", "map-64m"),
            ("*map*4?", "unmap-64m"),
            ("f*-xga", "flush-xga"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("map-*", "unmap-4k"),
            ("map", "map-4k"),
            ("?", ""),
            ("", "x"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
