//! Single values of a policy file, checked where they are read so that errors know their place.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use trireme_identity::Tag;
use trireme_policy::Service;

const MAX_NAME_LEN: usize = 128;

/// A field that is present has a value: `ingress:` with nothing behind it is neither absent nor empty.
pub(super) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The name of a policy or rule.
#[derive(Debug)]
pub(super) struct Name(String);

impl Name {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() || text.len() > MAX_NAME_LEN || text.chars().any(char::is_control) {
            return Err(D::Error::custom(format!(
                "a name has 1 to {MAX_NAME_LEN} bytes and no control characters, as in \"frontend\""
            )));
        }
        Ok(Self(text))
    }
}

/// The key of a tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) Box<str>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.starts_with("@port") {
            return Err(D::Error::custom(format!(
                "{text:?} is no tag of a peer: name the destination port under ports, as in ports: [80/tcp]"
            )));
        }
        match Tag::new(&text, "") {
            Ok(_) => Ok(Self(text.into())),
            Err(_) if text.contains('=') => {
                Err(D::Error::custom(format!("a key holds no '=': write tier: frontend, not {text:?}")))
            }
            Err(error) => Err(D::Error::custom(format!("{error}, as in tier: frontend"))),
        }
    }
}

/// The value of a tag: text, and nothing that YAML reads as something else.
#[derive(Debug)]
pub(super) struct Value(pub(super) Box<str>);

impl Value {
    pub(super) fn parse<E: Error>(text: &str) -> Result<Self, E> {
        Tag::new("key", text).map_err(E::custom)?;
        Ok(Self(text.into()))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl Visitor<'_> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in quotes, as in \"1.10\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Value::parse(text)
    }
}

/// A protocol with ports.
#[derive(Debug)]
pub(super) struct Port(pub(super) Service);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.parse::<u16>().is_ok() {
            return Err(D::Error::custom(format!(
                "{text} names no protocol: write {text}/tcp or {text}/udp"
            )));
        }
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

/// A network, or one address, as it was written: bits behind the prefix are worth a warning.
#[derive(Debug)]
pub(super) struct Network(IpNet);

impl Network {
    pub(super) fn net(&self) -> IpNet {
        self.0.trunc()
    }

    /// As it was written, if that is not what it means.
    pub(super) fn sloppy(&self) -> Option<IpNet> {
        (self.0 != self.net()).then_some(self.0)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let network =
            text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                D::Error::custom(format!(
                    "{text:?} is no network: write it as \"10.0.0.0/8\" or \"fd00::/8\""
                ))
            })?;
        Ok(Self(network))
    }
}
