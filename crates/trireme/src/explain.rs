//! Would a connection between two identities be allowed, and why?

use trireme_identity::{Direction, IdError, Protocol, PuId, PuKind, PuRuntime, TagSet};
use trireme_policy::{Action, CompileError, CompiledPolicy, Explanation, Peer};

use crate::{PolicyResolver, ResolveError};

/// A connection that nobody has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Identity of the initiator.
    pub from: TagSet,
    /// Identity of the responder.
    pub to: TagSet,
    /// Destination port.
    pub port: u16,
    /// IP protocol.
    pub protocol: Protocol,
}

/// What one end says about a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Opinion {
    /// Egress: the initiator's rules; ingress: the responder's.
    pub direction: Direction,
    /// Whether it accepts.
    pub accepts: bool,
    /// Why.
    pub explanation: Explanation,
}

/// Why there is no opinion.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The imagined unit cannot be named.
    #[error("the imagined unit cannot be named")]
    Id(#[from] IdError),
    /// The resolver has no policy for such a unit.
    #[error("there is no policy for {tags}")]
    Resolve {
        /// The identity asked about.
        tags: TagSet,
        /// The resolver's error.
        #[source]
        source: ResolveError,
    },
    /// The policy contradicts itself.
    #[error("the policy of {tags} does not compile")]
    Compile {
        /// The identity asked about.
        tags: TagSet,
        /// The compiler's error.
        #[source]
        source: CompileError,
    },
}

/// Asks both ends: the initiator's egress rules first, the responder's ingress rules after them.
///
/// # Errors
/// [`ExplainError`] if the resolver has no usable policy for one of the ends.
///
/// # Cancel safety
/// Nothing is changed; a drop loses the answer.
pub async fn explain(
    resolver: &dyn PolicyResolver,
    question: &Question,
) -> Result<[Opinion; 2], ExplainError> {
    let Question { from, to, port, protocol } = question;
    Ok([
        opinion(resolver, Direction::Egress, from, to, (*port, *protocol)).await?,
        opinion(resolver, Direction::Ingress, to, from, (*port, *protocol)).await?,
    ])
}

async fn opinion(
    resolver: &dyn PolicyResolver,
    direction: Direction,
    own: &TagSet,
    peer: &TagSet,
    (port, protocol): (u16, Protocol),
) -> Result<Opinion, ExplainError> {
    let id: PuId = "imagined".parse()?;
    let runtime = imagined(own);
    let resolved = resolver
        .resolve(&id, &runtime)
        .await
        .map_err(|source| ExplainError::Resolve { tags: own.clone(), source })?;
    let policy = CompiledPolicy::compile(&resolved.policy)
        .map_err(|source| ExplainError::Compile { tags: own.clone(), source })?;
    let peer = Peer { tags: peer, partial: false };
    let accepts = policy.decide(direction, &peer, port, protocol).action == Action::Accept;
    Ok(Opinion { direction, accepts, explanation: policy.explain(direction, &peer, port, protocol) })
}

/// A unit that has these tags and nothing else.
fn imagined(tags: &TagSet) -> PuRuntime {
    PuRuntime {
        name: "imagined".to_owned(),
        kind: PuKind::Other("imagined".to_owned()),
        pid: None,
        netns: None,
        interface: None,
        addresses: std::collections::BTreeMap::new(),
        image: None,
        user: None,
        tags: tags.clone(),
    }
}
