//! Programs on interfaces: tcx links, or cls_bpf filters on a clsact qdisc.
//!
//! Everything here acts on the namespace of the calling thread.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use aya::Ebpf;
use aya::programs::TcAttachType;
use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact};
use trireme_bpf_abi::edge_flag;
use trireme_netns::{Filter, Links};

use crate::error::Cause;
use crate::{AttachError, Hook, object, sys};

/// Priority and handle of our filters: first in the chain, one per hook.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0x7472, 0x6d65);

/// Both hooks of an edge, in the order in which they are closed.
pub(crate) const HOOKS: [Hook; 2] = [Hook::ToPu, Hook::FromPu];

/// One program on one hook of an interface.
pub(crate) struct Attachment<'a> {
    pub(crate) name: &'a str,
    pub(crate) ifindex: u32,
    /// Bits of [`edge_flag`].
    pub(crate) flags: u32,
    pub(crate) hook: Hook,
    /// Pin of the link; unused for filters.
    pub(crate) pin: &'a Path,
    /// The link of an earlier attachment.
    pub(crate) held: Option<&'a OwnedFd>,
}

/// What was attached.
#[derive(Debug)]
pub(crate) struct On {
    /// Number of the program.
    pub(crate) program: u32,
    /// The link, held so that the program stays when the pin goes; None for a filter.
    pub(crate) link: Option<OwnedFd>,
}

impl Attachment<'_> {
    /// Attaches the program, or replaces it where an earlier one is still attached.
    pub(crate) fn attach(&self, object: &mut Ebpf) -> Result<On, AttachError> {
        let name = match self.hook {
            Hook::FromPu => "from_pu",
            Hook::ToPu => "to_pu",
        };
        let done = if self.is(edge_flag::CLSACT) {
            self.attach_filter(object, name)
        } else {
            self.attach_link(object, name)
        };
        done.map_err(|source| AttachError::Program { what: name, name: self.name.to_owned(), source })
    }

    /// Detaches the program; that it is not there is no error.
    pub(crate) fn detach(&self) -> Result<(), Cause> {
        if self.is(edge_flag::CLSACT) {
            return self.detach_filter();
        }
        detach_link(self.pin)
    }

    fn attach_link(&self, object: &mut Ebpf, name: &'static str) -> Result<On, Cause> {
        let program = object::program(object, name)?;
        let id = program.info()?.id();
        if let Some(link) = self.earlier()? {
            sys::update(link.as_fd(), program.fd()?.as_fd())?;
            return Ok(On { program: id, link: Some(link) });
        }
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let attached = program.attach_with_options(self.name, self.side(), options)?;
        let link = FdLink::try_from(program.take_link(attached)?)?.pin(self.pin)?;
        drop(link);
        Ok(On { program: id, link: Some(sys::open(self.pin)?) })
    }

    /// The link that is on this hook already, pinned where it belongs.
    fn earlier(&self) -> Result<Option<OwnedFd>, Cause> {
        let on_this =
            |link: &OwnedFd| sys::link_state(link.as_fd()).ok().filter(|state| state.ifindex == self.ifindex);
        let pinned = if fs::exists(self.pin)? { Some(sys::open(self.pin)?) } else { None };
        let held = match self.held {
            Some(link) => Some(link.try_clone()?),
            None => None,
        };
        let Some((link, state)) =
            held.and_then(|link| on_this(&link).map(|state| (link, state))).or_else(|| {
                let link = pinned.as_ref()?.try_clone().ok()?;
                on_this(&link).map(|state| (link, state))
            })
        else {
            // What is pinned is a link of an interface that is gone, or no link at all.
            if pinned.is_some() {
                fs::remove_file(self.pin)?;
            }
            return Ok(None);
        };
        let in_place = pinned.and_then(|pinned| sys::link_state(pinned.as_fd()).ok());
        if in_place.is_none_or(|found| found.id != state.id) {
            if fs::exists(self.pin)? {
                fs::remove_file(self.pin)?;
            }
            sys::pin(link.as_fd(), self.pin)?;
        }
        Ok(Some(link))
    }

    fn attach_filter(&self, object: &mut Ebpf, name: &'static str) -> Result<On, Cause> {
        let program = object::program(object, name)?;
        let program_id = program.info()?.id();
        let options = || NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
        let id =
            match program.attach_with_options(self.name, self.side(), TcAttachOptions::Netlink(options())) {
                Ok(id) => id,
                Err(_taken) => {
                    let old = SchedClassifierLink::attached(self.name, self.side(), PRIORITY, HANDLE, None)?;
                    program.attach_to_link(old)?
                }
            };
        leave_attached(program.take_link(id)?);
        Ok(On { program: program_id, link: None })
    }

    fn detach_filter(&self) -> Result<(), Cause> {
        if Links::connect()?.clsact_filters(self.ifindex)?.is_empty() {
            return Ok(());
        }
        let link = SchedClassifierLink::attached(self.name, self.side(), PRIORITY, HANDLE, None)?;
        Ok(aya::programs::links::Link::detach(link)?)
    }

    fn side(&self) -> TcAttachType {
        if is_ingress(self.hook, self.flags) { TcAttachType::Ingress } else { TcAttachType::Egress }
    }

    fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// On the host side of a veth the PU's packets come in; inside its namespace they go out.
pub(crate) fn is_ingress(hook: Hook, flags: u32) -> bool {
    match hook {
        Hook::FromPu => flags & edge_flag::NAMESPACE == 0,
        Hook::ToPu => flags & edge_flag::NAMESPACE != 0,
    }
}

/// True for a filter in our place.
pub(crate) fn is_ours(filter: &Filter) -> bool {
    filter.priority == PRIORITY && filter.handle == 0x7472_6d65
}

/// Detaches a pinned link at once and removes its pin; that there is none is no error.
pub(crate) fn detach_link(pin: &Path) -> Result<(), Cause> {
    if !fs::exists(pin)? {
        return Ok(());
    }
    let link = sys::open(pin)?;
    let detached = sys::detach(link.as_fd());
    fs::remove_file(pin)?;
    match detached {
        // The interface is gone, and the attachment with it.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        other => Ok(other?),
    }
}

/// Makes sure of a clsact qdisc; true if there was none.
pub(crate) fn ensure_clsact(name: &str, ifindex: u32) -> Result<bool, Cause> {
    if Links::connect()?.has_clsact(ifindex)? {
        return Ok(false);
    }
    qdisc_add_clsact(name)?;
    Ok(true)
}

/// Takes away the clsact qdisc that we made, unless someone else's filters are on it.
pub(crate) fn remove_clsact(ifindex: u32) -> Result<(), Cause> {
    let links = Links::connect()?;
    if links.has_clsact(ifindex)? && links.clsact_filters(ifindex)?.is_empty() {
        links.delete_clsact(ifindex)?;
    }
    Ok(())
}

/// Leaves a filter where it is when its handle goes; the kernel keeps it without us.
pub(crate) fn leave_attached(link: SchedClassifierLink) {
    std::mem::forget(link);
}
