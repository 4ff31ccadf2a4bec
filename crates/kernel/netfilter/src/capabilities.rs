//! Which back ends the programs and the kernel have.

use std::fs;
use std::sync::OnceLock;

use crate::{BackEnd, MarkField, NetfilterError, OtherProtocols, Programs, RuleSet, Unanswered, iptables};

/// Which back ends can be used on this node.
///
/// Each is tried once, when it is first asked for, by writing a set of rules in a throw-away namespace; keep the value
/// for the life of the process. The kernel may load modules for what is tried.
#[derive(Debug, Default)]
pub struct Capabilities {
    programs: Programs,
    nft: OnceLock<Result<(), String>>,
    iptables_nft: OnceLock<Result<(), String>>,
    iptables_legacy: OnceLock<Result<(), String>>,
}

impl Capabilities {
    /// Capabilities of other programs than those in the search path.
    pub fn of(programs: Programs) -> Self {
        Self { programs, ..Self::default() }
    }

    /// Tells whether the back end can do what the rules need.
    ///
    /// # Errors
    /// [`NetfilterError::Unsupported`] with what it lacks.
    pub fn supports(&self, back_end: BackEnd) -> Result<(), NetfilterError> {
        let known = match back_end {
            BackEnd::Nft => &self.nft,
            BackEnd::IptablesNft => &self.iptables_nft,
            BackEnd::IptablesLegacy => &self.iptables_legacy,
        };
        let unsupported = |reason: &String| NetfilterError::Unsupported { back_end, reason: reason.clone() };
        known.get_or_init(|| self.probe(back_end)).as_ref().copied().map_err(unsupported)
    }

    /// Finds the back end for the calling thread's namespace: the one by which rules of ours are in force; else legacy
    /// if somebody has legacy rules; else the first of nft, iptables-nft and iptables-legacy that can be used.
    ///
    /// # Errors
    /// [`NetfilterError::NoBackEnd`] if none can be used, [`NetfilterError::Unsupported`] if somebody's legacy rules
    /// ask for one that cannot, and what keeps the present rules from being listed.
    pub fn choose(&self) -> Result<BackEnd, NetfilterError> {
        let legacy = has_legacy_tables();
        for back_end in BackEnd::ALL {
            if (back_end != BackEnd::IptablesLegacy || legacy) && self.in_force(back_end)? {
                return Ok(back_end);
            }
        }
        if legacy && iptables::legacy_rules(&self.programs)? {
            return self.supports(BackEnd::IptablesLegacy).map(|()| BackEnd::IptablesLegacy);
        }
        let mut reasons = Vec::new();
        for back_end in BackEnd::ALL {
            match self.supports(back_end) {
                Ok(()) => return Ok(back_end),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Err(NetfilterError::NoBackEnd { reasons: reasons.join("; ") })
    }

    /// Finds the back end for units of the host in the calling thread's namespace: the one that queues for them, else as
    /// [`choose`](Self::choose).
    ///
    /// # Errors
    /// As there.
    pub fn choose_host(&self) -> Result<BackEnd, NetfilterError> {
        if self.programs.has_host()? {
            let legacy = has_legacy_tables();
            for back_end in BackEnd::ALL {
                if (back_end != BackEnd::IptablesLegacy || legacy) && self.programs.queues_host(back_end)? {
                    return Ok(back_end);
                }
            }
        }
        self.choose()
    }

    fn in_force(&self, back_end: BackEnd) -> Result<bool, NetfilterError> {
        match self.programs.read(back_end) {
            Ok(found) => Ok(found.is_some()),
            Err(NetfilterError::Version { .. }) => Ok(true),
            // A back end that cannot be asked here is told of when it is needed.
            Err(NetfilterError::Missing { .. } | NetfilterError::Failed { .. }) => Ok(false),
            Err(other) => Err(other),
        }
    }

    fn probe(&self, back_end: BackEnd) -> Result<(), String> {
        let field = MarkField::new(0xff00_0000).map_err(|error| error.to_string())?;
        let sample = RuleSet {
            queue: 0,
            field,
            released: 1,
            // Asks for more than the other does.
            unanswered: Unanswered::Accept,
            other_protocols: OtherProtocols::Deny,
            tap_magic: [0; 4],
        };
        self.programs.spelled(back_end, &sample).map(drop).map_err(|error| {
            if let NetfilterError::Failed { program, said } = error {
                format!("{program} says {said}: a kernel with {} is needed", parts_of(back_end))
            } else {
                error.to_string()
            }
        })
    }
}

/// What the kernel needs, by the names of its configuration.
fn parts_of(back_end: BackEnd) -> &'static str {
    match back_end {
        BackEnd::Nft => "NF_TABLES_INET, NFT_CT and NFT_QUEUE",
        BackEnd::IptablesNft => {
            "NF_TABLES, NFT_COMPAT and the NFQUEUE, MARK, CONNMARK, connmark and u32 modules"
        }
        BackEnd::IptablesLegacy => {
            "IP_NF_MANGLE, IP6_NF_MANGLE and the NFQUEUE, MARK, CONNMARK, connmark and u32 modules"
        }
    }
}

/// True if the calling thread's namespace has legacy tables; asking a program for them would create them.
pub(crate) fn has_legacy_tables() -> bool {
    ["ip_tables_names", "ip6_tables_names"].iter().any(|name| {
        fs::read_to_string(format!("/proc/thread-self/net/{name}")).is_ok_and(|names| !names.is_empty())
    })
}
