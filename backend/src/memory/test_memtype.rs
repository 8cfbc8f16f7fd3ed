//! For test builds (the feature `test-memtype`): images announced with chosen memory types.
//!
//! `--test-memtype cached,uncached,wc` announces the images of descriptions 1, 2, 3, 4 of each
//! context as cached, uncached, write-combining, cached, and so on; what a renderer exports all as the
//! first of them. What is tested with it is links 4 and 5 of the chain: that a type goes from the device to the guest's page tables as it is.
//!
//! It shows attributes only. The memory stays a memfd, whose pages every host program maps cached,
//! so a guest that maps one otherwise reads and writes past lines that the host's caches hold. On a
//! real processor what either side sees is then undefined (Intel SDM vol. 3, "Programming the PAT":
//! a page must not be mapped write-combining and cacheable at the same time); an emulated one has
//! no caches.

use std::str::FromStr;
use std::sync::OnceLock;

use nosnoop_protocol::MapCache;
use nosnoop_protocol::ids::BlobId;

#[cfg(not(debug_assertions))]
compile_error!(
    "the feature test-memtype announces memory types that the memory does not have, which a \
     program that is shipped must never do: build without --release, or without the feature"
);

/// Memory types to announce in turn; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Types(Vec<MapCache>);

impl FromStr for Types {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |name| match name {
            "cached" => Ok(MapCache::Cached),
            "uncached" => Ok(MapCache::Uncached),
            "wc" => Ok(MapCache::Wc),
            _ => Err("name cached, uncached and wc, with commas between".to_owned()),
        };
        text.split(',')
            .map(named)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Types {
    /// The type of images of the description with this id; ids count from 1.
    fn of(&self, id: BlobId) -> MapCache {
        let number = usize::try_from(id.0.saturating_sub(1)).unwrap_or(0);
        let turn = number.checked_rem(self.0.len()).unwrap_or(0);
        self.0.get(turn).copied().unwrap_or(MapCache::Cached)
    }
}

/// What the command line has said. One list for the process: its devices live one after the other.
static TYPES: OnceLock<Types> = OnceLock::new();

/// From now on images are announced with these types. Only the first call counts.
pub fn announce(types: Types) {
    TYPES.get_or_init(|| types);
}

/// How guests are told to map the images of the description that a context has given this id, if
/// [`announce`] has said so.
#[must_use]
pub fn announced(id: BlobId) -> Option<MapCache> {
    TYPES.get().map(|types| types.of(id))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli;

    #[test]
    fn types_take_turns_from_the_first_id() {
        let types: Types = "cached,uncached,wc".parse().unwrap();
        let of = |id| types.of(BlobId(id));
        let all = [MapCache::Cached, MapCache::Uncached, MapCache::Wc];
        assert_eq!([1, 2, 3].map(of), all);
        assert_eq!([4, 1001, 1023].map(of), all);
    }

    #[test]
    fn anything_but_a_list_of_types_is_refused() {
        for text in ["", ",", "wc,", "WC", "cached wc", "none", "1"] {
            assert!(text.parse::<Types>().is_err(), "{text}");
        }
    }

    /// The only test that sets the process's list.
    #[test]
    fn the_option_decides_how_images_are_announced() {
        let parse = |types: &str| {
            let arguments = ["nosnoop-gpu", "--fd=5", "--test-memtype", types];
            cli::parse(arguments.map(OsString::from))
        };
        let refused = parse("wc,huge").unwrap_err().to_string();
        assert!(refused.contains("cached, uncached and wc"), "{refused}");
        assert_eq!(announced(BlobId(1)), None);
        parse("wc,cached").unwrap();
        assert_eq!(announced(BlobId(1)), Some(MapCache::Wc));
        assert_eq!(announced(BlobId(2)), Some(MapCache::Cached));
        assert_eq!(announced(BlobId(3)), Some(MapCache::Wc));
    }
}
