//! What is on the hooks of an interface, ours and others'.

use aya::programs::tc::TcAttachType;
use aya::programs::{SchedClassifier, loaded_programs};
use trireme_netns::Links;

use crate::attach::is_ours;
use crate::error::Cause;
use crate::probe;

/// A program, or a filter without one, on a hook of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnHook {
    /// True where the interface receives.
    pub ingress: bool,
    /// Name of the program; empty for a filter without one.
    pub name: String,
    /// True for ours, of whatever instance.
    pub ours: bool,
}

/// Returns what is on the hooks of an interface of the calling thread's namespace, on each in the order in which the
/// kernel runs it: tcx links, then filters.
///
/// # Errors
/// What the kernel says: listing them takes CAP_NET_ADMIN and CAP_SYS_ADMIN.
pub fn programs_on(name: &str) -> Result<Vec<OnHook>, Box<dyn std::error::Error + Send + Sync>> {
    let mut all = if probe::has_tcx() { links_on(name)? } else { Vec::new() };
    all.extend(filters_on(name)?);
    Ok(all)
}

fn links_on(name: &str) -> Result<Vec<OnHook>, Cause> {
    let mut all = Vec::new();
    for (ingress, side) in [(true, TcAttachType::Ingress), (false, TcAttachType::Egress)] {
        let (_, programs) = SchedClassifier::query_tcx(name, side)?;
        all.extend(programs.iter().map(|program| {
            let name = String::from_utf8_lossy(program.name()).into_owned();
            OnHook { ingress, ours: ["from_pu", "to_pu"].contains(&name.as_str()), name }
        }));
    }
    Ok(all)
}

fn filters_on(name: &str) -> Result<Vec<OnHook>, Cause> {
    let links = Links::connect()?;
    let index = links.by_name(name)?.index;
    if !links.has_clsact(index)? {
        return Ok(Vec::new());
    }
    let mut filters = links.clsact_filters(index)?;
    filters.sort_by_key(|filter| (filter.priority, filter.handle));
    let known: Vec<_> = loaded_programs().flatten().collect();
    Ok(filters
        .iter()
        .map(|filter| {
            let program = known.iter().find(|program| Some(program.id()) == filter.program);
            let name = program.map(|program| String::from_utf8_lossy(program.name()).into_owned());
            OnHook { ingress: filter.ingress, name: name.unwrap_or_default(), ours: is_ours(filter) }
        })
        .collect())
}
