//! What a repository holds: as the hub tells it, or as another tool left it on this disk.

use super::client::{HubClient, Trouble};
use crate::content::files_below;
use crate::models::reference::HubReference;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

/// The hash under which a hub knows a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentHash {
    /// SHA-256 of the content: large files.
    Sha256(String),
    /// SHA-1 of git's blob, a header with the length and the content: small files.
    GitBlob(String),
}

impl ContentHash {
    /// In hexadecimal: also the name of the file in the shared cache of Hugging Face tools.
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) => hex,
        }
    }

    /// Tells the two by their lengths; `None` for anything else.
    fn of_hex(hex: &str) -> Option<Self> {
        let hex = hex.to_ascii_lowercase();
        match (hex.bytes().all(|byte| byte.is_ascii_hexdigit()), hex.len()) {
            (true, 64) => Some(Self::Sha256(hex)),
            (true, 40) => Some(Self::GitBlob(hex)),
            _ => None,
        }
    }
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryFile {
    /// Path inside the repository, with `/`.
    pub path: String,
    /// Length.
    pub bytes: u64,
    /// What its content must hash to.
    pub hash: ContentHash,
}

/// A licence as a model card states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct License {
    /// `apache-2.0`, or the name of a licence of its own.
    pub name: String,
    /// Where its text is.
    pub link: Option<String>,
}

/// A repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The commit that the revision stands for.
    pub commit: String,
    /// Licence of the model card.
    pub license: Option<License>,
    /// Every file.
    pub files: Vec<RepositoryFile>,
}

/// Asks the hub for the files of a repository at a revision, with lengths and hashes.
pub fn ask(client: &HubClient<'_>, reference: &HubReference) -> Result<Listing, Trouble> {
    let revision = reference.revision().replace('/', "%2F");
    let path = format!("/api/models/{}/revision/{revision}?blobs=true", reference.repository);
    let mut response = client.get(&path, 0)?;
    // The list of a repository with thousands of files is below a megabyte.
    let text = response.body_mut().with_config().limit(64 << 20).read_to_string().unwrap_or_default();
    parse(&text).ok_or_else(|| Trouble::Unreachable {
        host: client.host(),
        reason: "its answer is not the list of files that a hub gives".into(),
    })
}

#[derive(Deserialize)]
struct Information {
    sha: String,
    #[serde(default, rename = "cardData")]
    card: Option<Card>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Card {
    license: Option<OneOrMany>,
    license_name: Option<String>,
    license_link: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    sha256: String,
    size: u64,
}

impl Card {
    fn license(self) -> Option<License> {
        let stated = match self.license? {
            OneOrMany::One(name) => name,
            OneOrMany::Many(names) => names.join(", "),
        };
        let name = if stated == "other" { self.license_name.unwrap_or(stated) } else { stated };
        Some(License { name, link: self.license_link })
    }
}

fn parse(text: &str) -> Option<Listing> {
    let information: Information = serde_json::from_str(text).ok()?;
    let plain = !information.sha.is_empty() && information.sha.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let files = information.siblings.into_iter().filter(|file| is_safe(&file.rfilename)).map(|file| {
        let (hash, bytes) = match file.lfs {
            Some(large) => (large.sha256, large.size),
            None => (file.blob_id?, file.size?),
        };
        Some(RepositoryFile { path: file.rfilename, bytes, hash: ContentHash::of_hex(&hash)? })
    });
    let files = files.collect::<Option<Vec<_>>>()?;
    plain.then_some(Listing { commit: information.sha, license: information.card.and_then(Card::license), files })
}

/// Whether a path of a repository stays below the folder that it is written to.
pub fn is_safe(path: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0', ':']);
    path.split('/').all(part)
}

/// The snapshot of a repository that another tool fetched into the shared cache of Hugging Face tools.
///
/// Its entries are links to files named by their hashes; a copy without links cannot be checked, and is none.
pub fn snapshot(shared_cache: &Path, reference: &HubReference) -> Option<Listing> {
    let folder = repository_folder(shared_cache, &reference.repository);
    let revision = reference.revision();
    let commit = fs::read_to_string(folder.join("refs").join(revision)).unwrap_or_else(|_| revision.to_owned());
    let commit = commit.trim().to_owned();
    let root = folder.join("snapshots").join(&commit);
    let files = files_below(&root).ok()?.into_iter().filter_map(|file| {
        let path = file.strip_prefix(&root).ok()?.to_string_lossy().into_owned();
        let hash = ContentHash::of_hex(&fs::read_link(&file).ok()?.file_name()?.to_string_lossy())?;
        Some(RepositoryFile { path, bytes: fs::metadata(&file).ok()?.len(), hash })
    });
    let license = fs::read_to_string(root.join("README.md")).ok().and_then(|card| license_of_card(&card));
    Some(Listing { commit, license, files: files.collect() })
}

/// The licence in the YAML head of a model card.
fn license_of_card(card: &str) -> Option<License> {
    let head = card.strip_prefix("---\n")?.split("\n---").next()?;
    serde_yaml::from_str::<Card>(head).ok()?.license()
}

/// A file of the shared cache, by its hash.
pub fn shared_file(shared_cache: &Path, repository: &str, hash: &ContentHash) -> PathBuf {
    repository_folder(shared_cache, repository).join("blobs").join(hash.hex())
}

fn repository_folder(shared_cache: &Path, repository: &str) -> PathBuf {
    shared_cache.join(format!("models--{}", repository.replace('/', "--")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

    #[test]
    fn the_answer_of_a_hub_gives_lengths_hashes_and_the_licence() {
        let text = format!(
            r#"{{"id": "o/n", "sha": "abc123", "cardData": {{"license": "other", "license_name": "grove", "license_link": "LICENSE"}},
                "siblings": [{{"rfilename": "m.gguf", "size": 9, "blobId": "00", "lfs": {{"sha256": "{SHA256}", "size": 9}}}},
                             {{"rfilename": "../x", "size": 1, "blobId": "{}"}},
                             {{"rfilename": "config.json", "size": 3, "blobId": "{}"}}]}}"#,
            "1".repeat(40),
            "2".repeat(40)
        );
        let listing = parse(&text).unwrap();
        assert_eq!(listing.license, Some(License { name: "grove".into(), link: Some("LICENSE".into()) }));
        let hashes: Vec<_> = listing.files.iter().map(|file| (file.path.as_str(), file.bytes, &file.hash)).collect();
        let (large, small) = (ContentHash::Sha256(SHA256.into()), ContentHash::GitBlob("2".repeat(40)));
        assert_eq!(hashes, [("m.gguf", 9, &large), ("config.json", 3, &small)]);
        for bad in ["", "<html>", r#"{"sha": "../.."}"#, r#"{"sha": "a", "siblings": [{"rfilename": "x"}]}"#] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_licence_stands_in_the_head_of_the_card() {
        let license = |text| license_of_card(text).map(|license| license.name);
        assert_eq!(license("---\nlanguage: en\nlicense: apache-2.0\n---\n# Model\n"), Some("apache-2.0".into()));
        assert_eq!(license("---\nlicense: [mit, apache-2.0]\n---\n"), Some("mit, apache-2.0".into()));
        assert_eq!(license("# Model\nlicense: mit\n"), None);
    }

    #[test]
    fn a_path_that_leaves_its_folder_is_not_safe() {
        assert!(is_safe("a.gguf") && is_safe("1_Pooling/config.json"));
        for bad in ["", "/etc/x", "../x", "a/../b", "a//b", "a\\b", "c:x"] {
            assert!(!is_safe(bad), "{bad}");
        }
    }
}
