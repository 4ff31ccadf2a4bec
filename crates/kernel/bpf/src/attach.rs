//! Programs on interfaces: tcx links, or cls_bpf filters on a clsact qdisc.
//!
//! Everything here acts on the namespace of the calling thread.

use std::fs;
use std::path::Path;

use aya::Ebpf;
use aya::programs::TcAttachType;
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact};
use trireme_bpf_abi::edge_flag;
use trireme_netns::Links;

use crate::error::Cause;
use crate::link_pin::detach_link;
use crate::object;
use crate::{AttachError, Hook};

/// Priority and handle of our filters: first in the chain, one per hook.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0x7472, 0x6d65);

/// One program on one hook of an interface.
pub(crate) struct Attachment<'a> {
    pub(crate) name: &'a str,
    pub(crate) ifindex: u32,
    /// Bits of [`edge_flag`].
    pub(crate) flags: u32,
    pub(crate) hook: Hook,
    /// Pin of the link; unused for filters.
    pub(crate) pin: &'a Path,
}

impl Attachment<'_> {
    /// Attaches the program, or replaces it where an earlier one is still attached.
    pub(crate) fn attach(&self, object: &mut Ebpf) -> Result<(), AttachError> {
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

    fn attach_link(&self, object: &mut Ebpf, name: &'static str) -> Result<(), Cause> {
        let program = object::program(object, name)?;
        if fs::exists(self.pin)? {
            let old = FdLink::from(PinnedLink::from_pin(self.pin)?);
            let id = program.attach_to_link(old.try_into()?)?;
            drop(program.take_link(id)?);
            return Ok(());
        }
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(self.name, self.side(), options)?;
        let link = FdLink::try_from(program.take_link(id)?)?;
        link.pin(self.pin)?;
        Ok(())
    }

    fn attach_filter(&self, object: &mut Ebpf, name: &'static str) -> Result<(), Cause> {
        let program = object::program(object, name)?;
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
        Ok(())
    }

    fn detach_filter(&self) -> Result<(), Cause> {
        if Links::connect()?.clsact_filters(self.ifindex)? == 0 {
            return Ok(());
        }
        let link = SchedClassifierLink::attached(self.name, self.side(), PRIORITY, HANDLE, None)?;
        Ok(aya::programs::links::Link::detach(link)?)
    }

    /// On the host side of a veth the PU's packets come in; inside its namespace they go out.
    fn side(&self) -> TcAttachType {
        match (self.hook, self.is(edge_flag::NAMESPACE)) {
            (Hook::FromPu, false) | (Hook::ToPu, true) => TcAttachType::Ingress,
            (Hook::FromPu, true) | (Hook::ToPu, false) => TcAttachType::Egress,
        }
    }

    fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
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
    if links.has_clsact(ifindex)? && links.clsact_filters(ifindex)? == 0 {
        links.delete_clsact(ifindex)?;
    }
    Ok(())
}

/// Leaves a filter where it is when its handle goes; the kernel keeps it without us.
pub(crate) fn leave_attached(link: SchedClassifierLink) {
    std::mem::forget(link);
}
