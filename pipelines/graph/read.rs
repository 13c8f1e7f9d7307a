//! Reads a pipeline file: `uses` decides how the rest of a stage is read, and each part remembers its place.

use super::file::{Place, StageKind, StagePlaces, StageSpec};
use super::words::Words;
use crate::stages::StageConfig;
use crate::suggestion::closest;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::{Location, Spanned};
use std::collections::BTreeSet;
use std::fmt;

pub(super) fn place(location: Location) -> Place {
    Place { line: location.line(), column: location.column() }
}

/// The word that says what a stage does: its `uses`, or its name.
pub(super) struct Use {
    stage: String,
    pub(super) word: String,
    pub(super) place: Place,
}

impl Use {
    /// The kind of stage that the word names, or what is wrong with it.
    pub(super) fn kind(&self) -> Result<StageKind, Words> {
        let known = StageKind::ALL.map(StageKind::name);
        StageKind::ALL.into_iter().find(|kind| kind.name() == self.word).ok_or_else(|| Words {
            message: format!("there is no kind of stage `{}`", self.word),
            hint: Some(closest(&self.word, &known).map_or_else(
                || format!("a stage's name, or its `uses:`, is one of {}", known.join(", ")),
                |close| format!("did you mean `{close}`?"),
            )),
        })
    }
}

/// What every stage does, read first: it decides how the rest of each stage is read.
#[derive(Default)]
pub(super) struct Uses(pub(super) Vec<Use>);

impl<'de> Deserialize<'de> for Uses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UsesVisitor;
        impl<'de> Visitor<'de> for UsesVisitor {
            type Value = Uses;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a mapping of stage names to their configuration")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Uses, A::Error> {
                #[derive(Deserialize)]
                struct Stage {
                    uses: Option<Spanned<String>>,
                }
                let mut found = Vec::new();
                while let Some((name, stage)) = map.next_entry::<Spanned<String>, Option<Stage>>()? {
                    let word = stage.and_then(|stage| stage.uses).unwrap_or_else(|| name.clone());
                    found.push(Use { stage: name.value, place: place(word.referenced), word: word.value });
                }
                Ok(Uses(found))
            }
        }
        deserializer.deserialize_map(UsesVisitor)
    }
}

pub(super) struct FileSeed<'a> {
    pub(super) uses: &'a [Use],
}

/// A pipeline file before it is known to be whole.
#[derive(Default)]
pub(super) struct RawFile {
    pub(super) espalier: Option<u64>,
    pub(super) name: Option<String>,
    pub(super) student: Option<Spanned<String>>,
    pub(super) teacher: Option<Spanned<String>>,
    pub(super) stages: Vec<StageSpec>,
}

impl<'de> DeserializeSeed<'de> for FileSeed<'_> {
    type Value = RawFile;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawFile, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FileSeed<'_> {
    type Value = RawFile;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a pipeline file: a mapping with `espalier`, `name`, `student` and `stages`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFile, A::Error> {
        use serde::de::Error;
        const KEYS: &[&str] = &["espalier", "name", "student", "teacher", "stages"];
        let mut file = RawFile::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "espalier" => file.espalier = Some(map.next_value()?),
                "name" => file.name = Some(map.next_value()?),
                "student" => file.student = Some(map.next_value()?),
                "teacher" => file.teacher = Some(map.next_value()?),
                "stages" => file.stages = map.next_value_seed(StagesSeed { uses: self.uses })?,
                other => return Err(A::Error::unknown_field(other, KEYS)),
            }
        }
        Ok(file)
    }
}

struct StagesSeed<'a> {
    uses: &'a [Use],
}

impl<'de> DeserializeSeed<'de> for StagesSeed<'_> {
    type Value = Vec<StageSpec>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for StagesSeed<'_> {
    type Value = Vec<StageSpec>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a mapping of stage names to their configuration")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        use serde::de::Error;
        let mut stages: Vec<StageSpec> = Vec::new();
        while let Some(name) = map.next_key::<Spanned<String>>()? {
            let (at, name) = (place(name.referenced), name.value);
            let kind = self.uses.iter().find(|found| found.stage == name).and_then(|found| found.kind().ok());
            let kind = kind.ok_or_else(|| A::Error::custom(format!("there is no kind of stage `{name}`")))?;
            stages.push(map.next_value_seed(StageSeed { name, kind, place: at })?);
        }
        Ok(stages)
    }
}

struct StageSeed {
    name: String,
    kind: StageKind,
    place: Place,
}

impl<'de> DeserializeSeed<'de> for StageSeed {
    type Value = StageSpec;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<StageSpec, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for StageSeed {
    type Value = StageSpec;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the configuration of `{}`, a mapping", self.name)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<StageSpec, E> {
        let config =
            StageConfig::defaults(self.kind).map_err(|error| E::custom(format!("stage `{}`: {error}", self.name)))?;
        let places = StagePlaces { name: self.place, ..StagePlaces::default() };
        Ok(StageSpec { name: self.name, kind: self.kind, needs: Vec::new(), config, given: BTreeSet::new(), places })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StageSpec, A::Error> {
        let mut needs = Vec::new();
        let mut places = StagePlaces { name: self.place, ..StagePlaces::default() };
        let own = OwnKeys { map, needs: &mut needs, places: &mut places };
        let config = StageConfig::read(self.kind, serde::de::value::MapAccessDeserializer::new(own))?;
        let given = places.keys.keys().cloned().collect();
        Ok(StageSpec { name: self.name, kind: self.kind, needs, config, given, places })
    }
}

/// Takes `needs` and `uses` out of a stage's mapping and hands the rest to the stage's own configuration, so that this
/// can refuse unknown keys and the reader still knows where each stands.
struct OwnKeys<'a, A> {
    map: A,
    needs: &'a mut Vec<String>,
    places: &'a mut StagePlaces,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for OwnKeys<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        use serde::de::IntoDeserializer;
        while let Some(key) = self.map.next_key::<Spanned<String>>()? {
            let (at, key) = (place(key.referenced), key.value);
            match key.as_str() {
                "needs" => {
                    let needs = self.map.next_value::<Vec<Spanned<String>>>()?;
                    self.places.needs = needs.iter().map(|need| place(need.referenced)).collect();
                    *self.needs = needs.into_iter().map(|need| need.value).collect();
                }
                "uses" => {
                    self.map.next_value::<IgnoredAny>()?;
                }
                _ => {
                    self.places.keys.insert(key.clone(), at);
                    return seed.deserialize(key.into_deserializer()).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}
