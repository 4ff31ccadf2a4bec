//! Selectors as they are written: `tier: web`, `tier: [web, app]`, `tier: {not: [web], exists: true}`.

use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use trireme_policy::{Clause, Selector};

use super::words::{Key, Value, given};

/// Conditions on tags that must hold together.
#[derive(Debug)]
pub(super) struct Conditions(Selector);

impl Conditions {
    pub(super) const fn selector(&self) -> &Selector {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Conditions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ConditionsVisitor)
    }
}

struct ConditionsVisitor;

impl<'de> Visitor<'de> for ConditionsVisitor {
    type Value = Conditions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("conditions on tags, as in {tier: frontend}, or {} for every identity")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Conditions, M::Error> {
        let mut clauses = Vec::new();
        while let Some(key) = map.next_key::<Key>()? {
            let condition: Condition = map.next_value()?;
            clauses.extend(condition.clauses(&key.0));
        }
        Ok(Conditions(Selector::new(clauses)))
    }
}

/// What is asked of the values of one key.
enum Condition {
    AnyOf(Values),
    Operators(Operators),
}

impl Condition {
    fn clauses(&self, key: &str) -> Vec<Clause> {
        match self {
            Self::AnyOf(values) => vec![Clause::equal(key, values.iter())],
            Self::Operators(Operators { equal, all, not, prefix, exists }) => {
                let each = all.iter().flat_map(Values::iter).map(|value| Clause::equal(key, [value]));
                let equal = equal.as_ref().map(|values| Clause::equal(key, values.iter()));
                let not = not.as_ref().map(|values| Clause::not_equal(key, values.iter()));
                let prefix = prefix.as_ref().map(|values| Clause::prefix(key, values.iter()));
                let exists =
                    exists.map(|exists| if exists { Clause::exists(key) } else { Clause::not_exists(key) });
                each.chain(equal).chain(not).chain(prefix).chain(exists).collect()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ConditionVisitor)
    }
}

struct ConditionVisitor;

impl<'de> Visitor<'de> for ConditionVisitor {
    type Value = Condition;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text (in quotes if it looks like a number or truth value), a list of texts, or operators as in {not: [test]}")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Condition, E> {
        plain(text)?;
        Ok(Condition::AnyOf(Values(vec![Value::parse(text)?])))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, seq: S) -> Result<Condition, S::Error> {
        let values = ValuesVisitor.visit_seq(seq)?;
        values.iter().try_for_each(plain)?;
        Ok(Condition::AnyOf(values))
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Condition, M::Error> {
        let operators = Operators::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
        if matches!(operators, Operators { equal: None, all: None, not: None, prefix: None, exists: None }) {
            return Err(M::Error::custom("no operator is given: write equal, all, not, prefix or exists"));
        }
        Ok(Condition::Operators(operators))
    }
}

/// A star would be read as a pattern by some and as a star by others.
fn plain<E: Error>(text: &str) -> Result<(), E> {
    match text.strip_suffix('*') {
        None => Ok(()),
        Some(prefix) => Err(E::custom(format!(
            "{text:?} ends with a star: write {{prefix: {prefix:?}}} for every value that begins so, or {{equal: {text:?}}} for the star itself"
        ))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operators {
    #[serde(default, deserialize_with = "given")]
    equal: Option<Values>,
    #[serde(default, deserialize_with = "given")]
    all: Option<Values>,
    #[serde(default, deserialize_with = "given")]
    not: Option<Values>,
    #[serde(default, deserialize_with = "given")]
    prefix: Option<Values>,
    #[serde(default, deserialize_with = "given")]
    exists: Option<bool>,
}

/// At least one value.
struct Values(Vec<Value>);

impl Values {
    fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|value| &*value.0)
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValuesVisitor)
    }
}

struct ValuesVisitor;

impl<'de> Visitor<'de> for ValuesVisitor {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text (in quotes if it looks like a number or truth value) or a list of texts")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Values, E> {
        Ok(Values(vec![Value::parse(text)?]))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Values, S::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        if values.is_empty() {
            return Err(S::Error::custom("the list of values is empty: name at least one value"));
        }
        Ok(Values(values))
    }
}
