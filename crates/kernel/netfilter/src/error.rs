//! Why rules could not be written, read or removed.

use std::io;

use trireme_netns::NamespaceError;

use crate::{BackEnd, Damage, MarkField};

/// Why rules could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetfilterError {
    /// No back end has the name.
    #[error("no back end is named {0:?}: it is nft, iptables-nft or iptables-legacy")]
    Name(String),
    /// The value of `released` is none.
    #[error("released={released} is no release of mark field {field}: choose 1 to {max}")]
    Released {
        /// The value.
        released: u32,
        /// The field.
        field: MarkField,
        /// The largest that is right.
        max: u32,
    },
    /// A unit of the host has a number that the field has no room for.
    #[error(
        "mark field {field} has room for {max} units of the host, and {number} is one too many: choose a wider one"
    )]
    Number {
        /// The number.
        number: u32,
        /// The field.
        field: MarkField,
        /// The largest that is right.
        max: u32,
    },
    /// Two units of the host have one number.
    #[error("the cgroups {one} and {two} have one number")]
    Shared {
        /// The one.
        one: String,
        /// The other.
        two: String,
    },
    /// A path of a cgroup that `nft` would not read as it is.
    #[error(
        "the path of cgroup {0:?} cannot be written into a rule: it is too long, or has a quote, a backslash or a star"
    )]
    Cgroup(String),
    /// `nft` or the kernel cannot tell sockets by their cgroup.
    #[error(
        "nft says {said}: for units of the host nftables 1.0 or later and a kernel with NFT_SOCKET and SOCK_CGROUP_DATA \
         (`socket cgroupv2`) are needed"
    )]
    Lacking {
        /// What it said.
        said: String,
    },
    /// A program is not installed.
    #[error("program {program} is not installed: install the package {package}")]
    Missing {
        /// The program.
        program: String,
        /// The package that has it.
        package: &'static str,
    },
    /// A program could not be run.
    #[error("cannot run {program}")]
    Run {
        /// The program.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program refused.
    #[error("{program} failed: {said}")]
    Failed {
        /// The program.
        program: String,
        /// What it said.
        said: String,
    },
    /// A listing has a line that is not understood.
    #[error("{program} lists a line that is not understood: {line:?}")]
    Unreadable {
        /// The program.
        program: String,
        /// The line.
        line: String,
    },
    /// The back end lacks a part.
    #[error("back end {back_end} cannot be used here: {reason}")]
    Unsupported {
        /// The back end.
        back_end: BackEnd,
        /// What it lacks.
        reason: String,
    },
    /// No back end can be used.
    #[error(
        "no back end can be used ({reasons}): install iptables 1.8 or nftables, and a kernel with NFQUEUE"
    )]
    NoBackEnd {
        /// What each lacks.
        reasons: String,
    },
    /// Somebody else's rules stand under a name of ours.
    #[error("{place} is taken by someone else: rename or delete it")]
    Taken {
        /// The chain or table.
        place: String,
    },
    /// Rules of another version of this crate are in force.
    #[error("rules of another version are in force ({comment:?}): apply replaces them, remove deletes them")]
    Version {
        /// Their comment.
        comment: String,
    },
    /// Someone changes the rules at the same time.
    #[error(
        "the rules do not stay as they were written ({0}): another program changes them at the same time"
    )]
    Contended(Damage),
    /// A set that could be written in part only could not be taken back either.
    #[error(
        "{cause}; taking back what was written failed too ({undo}): connections stay closed until apply succeeds"
    )]
    Undo {
        /// What failed first.
        cause: Box<Self>,
        /// What failed next.
        undo: Box<Self>,
    },
    /// No throw-away namespace to try rules in.
    #[error("cannot try rules in a namespace of their own")]
    Namespace(#[from] NamespaceError),
}
