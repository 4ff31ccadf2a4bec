//! Links of a namespace, over a netlink connection with a runtime of its own.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::packet_core::{ErrorMessage, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth};
use tokio::runtime::{Builder, Runtime};

use crate::{Namespace, NamespaceError};

/// What the kernel says about a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique in the link's namespace only.
    pub index: u32,
    /// Name.
    pub name: String,
    /// True for a device with Ethernet headers.
    pub ethernet: bool,
    /// True for one end of a veth pair.
    pub veth: bool,
    /// True for one end of a netkit pair.
    pub netkit: bool,
    /// Interface index of the device below or of the other end, in its own namespace.
    pub lower: Option<u32>,
    /// True if that device is in another namespace.
    pub lower_elsewhere: bool,
    /// The number that the link's namespace has given to that namespace.
    pub lower_namespace: Option<i32>,
    /// Hardware address, as long as the device says.
    pub address: Vec<u8>,
    /// Largest packet.
    pub mtu: u32,
}

/// A filter on a clsact hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// True on the ingress hook.
    pub ingress: bool,
    /// Its place in the chain; the lowest is first.
    pub priority: u16,
    /// Its number at that place.
    pub handle: u32,
    /// Number of its BPF program, if it has one.
    pub program: Option<u32>,
}

/// A netlink connection into the namespace in which it was opened.
pub struct Links {
    runtime: Runtime,
    handle: Handle,
}

impl Links {
    /// Connects to the namespace of the calling thread.
    ///
    /// # Errors
    /// [`LinkError::Connect`] if the kernel refuses a netlink socket.
    pub fn connect() -> Result<Self, LinkError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(LinkError::Connect)?;
        let handle = {
            let _guard = runtime.enter();
            let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Connect)?;
            let _task = runtime.spawn(connection);
            handle
        };
        Ok(Self { runtime, handle })
    }

    /// Returns the link with this name.
    ///
    /// # Errors
    /// [`LinkError::Absent`] if there is none.
    pub fn by_name(&self, name: &str) -> Result<Link, LinkError> {
        self.one(self.handle.link().get().match_name(name), name)
    }

    /// Returns the link with this index.
    ///
    /// # Errors
    /// [`LinkError::Absent`] if there is none.
    pub fn by_index(&self, index: u32) -> Result<Link, LinkError> {
        self.one(self.handle.link().get().match_index(index), &format!("#{index}"))
    }

    /// Returns all links.
    ///
    /// # Errors
    /// [`LinkError::Refused`] if the kernel refuses.
    pub fn all(&self) -> Result<Vec<Link>, LinkError> {
        let found: Result<Vec<LinkMessage>, _> =
            self.runtime.block_on(self.handle.link().get().execute().try_collect());
        Ok(found.map_err(|error| refused("list", "links", error))?.iter().map(link_of).collect())
    }

    /// Creates a veth pair, both ends in this namespace and down.
    ///
    /// # Errors
    /// [`LinkError::Refused`] if a name is taken or the privilege is missing.
    pub fn create_veth(&self, name: &str, peer: &str) -> Result<(Link, Link), LinkError> {
        self.runtime
            .block_on(self.handle.link().add(LinkVeth::new(name, peer).build()).execute())
            .map_err(|error| refused("create", name, error))?;
        Ok((self.by_name(name)?, self.by_name(peer)?))
    }

    /// Moves a link into another namespace.
    ///
    /// # Errors
    /// [`LinkError::Refused`] if the name is taken there or the privilege is missing.
    pub fn move_into(&self, index: u32, namespace: &Namespace) -> Result<(), LinkError> {
        let fd = namespace.as_fd().as_raw_fd();
        self.change("move", index, LinkUnspec::new_with_index(index).setns_by_fd(fd))
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// [`LinkError::Refused`] if the kernel refuses.
    pub fn set_up(&self, index: u32) -> Result<(), LinkError> {
        self.change("set up", index, LinkUnspec::new_with_index(index).up())
    }

    /// Sets the largest packet of a link.
    ///
    /// # Errors
    /// [`LinkError::Refused`] if the device does not take that size.
    pub fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), LinkError> {
        self.change("resize", index, LinkUnspec::new_with_index(index).mtu(mtu))
    }

    /// Deletes a link, and with one end of a veth pair the other.
    ///
    /// # Errors
    /// [`LinkError::Refused`] if the kernel refuses.
    pub fn delete(&self, index: u32) -> Result<(), LinkError> {
        self.runtime
            .block_on(self.handle.link().del(index).execute())
            .map_err(|error| refused("delete", &format!("#{index}"), error))
    }

    /// True if the link has a clsact qdisc.
    ///
    /// # Errors
    /// [`LinkError::Refused`] if the kernel refuses.
    pub fn has_clsact(&self, index: u32) -> Result<bool, LinkError> {
        let found: Result<Vec<_>, _> =
            self.runtime.block_on(self.handle.qdisc().get().execute().try_collect());
        let found = found.map_err(|error| refused("list", "qdiscs", error))?;
        Ok(found.iter().any(|qdisc| {
            u32::try_from(qdisc.header.index) == Ok(index)
                && qdisc.attributes.iter().any(|a| matches!(a, TcAttribute::Kind(kind) if kind == "clsact"))
        }))
    }

    /// Deletes the clsact qdisc of a link with all filters on it.
    ///
    /// # Errors
    /// [`LinkError::Refused`] if there is none.
    pub fn delete_clsact(&self, index: u32) -> Result<(), LinkError> {
        let name = format!("clsact of #{index}");
        let Ok(signed) = i32::try_from(index) else { return Err(LinkError::Absent(name)) };
        let mut request = self.handle.qdisc().del(signed);
        request.message_mut().header.parent = TcHandle::CLSACT;
        request.message_mut().header.handle = TcHandle { major: u16::MAX, minor: 0 };
        self.runtime.block_on(request.execute()).map_err(|error| refused("delete", &name, error))
    }

    /// Returns the filters on the clsact hooks of a link.
    ///
    /// # Errors
    /// [`LinkError::Refused`] if the kernel refuses.
    pub fn clsact_filters(&self, index: u32) -> Result<Vec<Filter>, LinkError> {
        let name = format!("filters of #{index}");
        let Ok(signed) = i32::try_from(index) else { return Err(LinkError::Absent(name)) };
        let mut all = Vec::new();
        let get = || self.handle.traffic_filter(signed).get();
        for (ingress, request) in [(true, get().ingress()), (false, get().egress())] {
            let found: Result<Vec<_>, _> = self.runtime.block_on(request.execute().try_collect());
            let found = found.map_err(|error| refused("list", &name, error))?;
            let real = found.iter().filter(|filter| filter.header.handle != TcHandle::UNSPEC);
            all.extend(real.map(|filter| filter_of(filter, ingress)));
        }
        Ok(all)
    }

    /// Returns the number that the namespace of this connection has given to another one; None if it has not.
    ///
    /// # Errors
    /// [`LinkError::Refused`] if the kernel refuses.
    pub fn number_of(&self, namespace: &Namespace) -> Result<Option<i32>, LinkError> {
        let mut question = NsidMessage::default();
        let fd = u32::try_from(namespace.as_fd().as_raw_fd()).unwrap_or(u32::MAX);
        question.attributes = vec![NsidAttribute::Fd(fd)];
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(question));
        message.header.flags = NLM_F_REQUEST;
        let name = namespace.id().to_string();
        let failed = |error| refused("find", &name, error);
        let mut answers = self.handle.clone().request(message).map_err(failed)?;
        while let Some(answer) = self.runtime.block_on(answers.next()) {
            if let NetlinkPayload::Error(error) = answer.payload {
                return Err(failed(rtnetlink::Error::NetlinkError(error)));
            }
            if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(answer)) = answer.payload {
                return Ok(answer.attributes.iter().find_map(number));
            }
        }
        Ok(None)
    }

    fn one(&self, request: rtnetlink::LinkGetRequest, name: &str) -> Result<Link, LinkError> {
        let found = self.runtime.block_on(request.execute().try_next());
        match found {
            Ok(Some(message)) => Ok(link_of(&message)),
            Ok(None) => Err(LinkError::Absent(name.to_owned())),
            Err(error) => Err(refused("find", name, error)),
        }
    }

    fn change(
        &self,
        verb: &'static str,
        index: u32,
        message: LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), LinkError> {
        self.runtime
            .block_on(self.handle.link().change(message.build()).execute())
            .map_err(|error| refused(verb, &format!("#{index}"), error))
    }
}

/// Finds the other end of the veth `device` of `inside`, if that end is in the namespace of the calling thread.
///
/// The candidate counts only if it is a veth whose own other end is `device`; an index that merely matches by
/// chance does not.
///
/// # Errors
/// [`LinkError::Absent`] if there is no such device, [`LinkError::Namespace`] if the namespace cannot be entered.
pub fn host_side(inside: &Namespace, device: &str) -> Result<Option<Link>, LinkError> {
    let end = inside.run(|| Links::connect()?.by_name(device))??;
    let Some(peer) = end.lower.filter(|_| end.veth) else { return Ok(None) };
    match Links::connect()?.by_index(peer) {
        Ok(link)
            if link.veth && link.lower == Some(end.index) && link.lower_elsewhere == end.lower_elsewhere =>
        {
            Ok(Some(link))
        }
        Ok(_) | Err(LinkError::Absent(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Why a link could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No netlink connection.
    #[error("cannot open a netlink connection")]
    Connect(#[source] io::Error),
    /// There is no such link.
    #[error("there is no network interface {0} in this namespace")]
    Absent(String),
    /// The kernel refused.
    #[error("cannot {verb} {name}")]
    Refused {
        /// What was tried.
        verb: &'static str,
        /// On which link.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The namespace cannot be used.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
}

fn refused(verb: &'static str, name: &str, error: rtnetlink::Error) -> LinkError {
    let source = if let rtnetlink::Error::NetlinkError(ErrorMessage { code: Some(code), .. }) = error {
        io::Error::from_raw_os_error(code.get().saturating_neg())
    } else {
        io::Error::other(error)
    };
    match source.raw_os_error() {
        Some(libc::ENODEV) => LinkError::Absent(name.to_owned()),
        _ => LinkError::Refused { verb, name: name.to_owned(), source },
    }
}

/// The number in an answer; -1 says that there is none.
fn number(attribute: &NsidAttribute) -> Option<i32> {
    let NsidAttribute::Id(number) = attribute else { return None };
    Some(*number).filter(|number| *number >= 0)
}

fn program(option: &TcOption) -> Option<u32> {
    let TcOption::Bpf(TcFilterBpfOption::ProgId(id)) = option else { return None };
    Some(*id)
}

fn filter_of(message: &TcMessage, ingress: bool) -> Filter {
    let program = message.attributes.iter().find_map(|attribute| {
        let TcAttribute::Options(options) = attribute else { return None };
        options.iter().find_map(program)
    });
    let TcHandle { major, minor } = message.header.handle;
    Filter {
        ingress,
        // The priority is in the high half.
        priority: u16::try_from(message.header.info >> 16).unwrap_or(0),
        handle: u32::from(major) << 16 | u32::from(minor),
        program,
    }
}

fn link_of(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        ethernet: message.header.link_layer_type == LinkLayerType::Ether
            && message.header.interface_family == AddressFamily::Unspec,
        ..Link::default()
    };
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name.clone_from(name);
        } else if let LinkAttribute::Link(index) = attribute {
            link.lower = Some(*index);
        } else if let LinkAttribute::LinkNetNsId(number) = attribute {
            link.lower_namespace = Some(*number);
            link.lower_elsewhere = true;
        } else if let LinkAttribute::Address(address) = attribute {
            link.address.clone_from(address);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            link.mtu = *mtu;
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            link.veth = infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth)));
            link.netkit = infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Netkit)));
        }
    }
    link
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn host_side_of_a_veth_is_found_and_nothing_else_is_taken_for_it() {
        let node = Namespace::anonymous().unwrap();
        let inside = Namespace::anonymous().unwrap();
        node.run(|| {
            let links = Links::connect().unwrap();
            let (host, end) = links.create_veth("host0", "eth0").unwrap();
            links.move_into(end.index, &inside).unwrap();
            links.set_up(host.index).unwrap();

            let found = host_side(&inside, "eth0").unwrap().unwrap();

            assert_eq!((found.index, found.name.as_str()), (host.index, "host0"));
            assert!(found.ethernet && found.veth);
            assert_eq!(host_side(&inside, "lo").unwrap(), None);
            let absent = host_side(&inside, "eth9");
            assert!(matches!(&absent, Err(LinkError::Absent(name)) if name == "eth9"), "{absent:?}");
        })
        .unwrap();
    }

    #[test]
    fn deleting_one_end_deletes_the_pair() {
        let node = Namespace::anonymous().unwrap();
        node.run(|| {
            let links = Links::connect().unwrap();
            let before = links.all().unwrap();
            let (near, far) = links.create_veth("near0", "far0").unwrap();
            links.set_mtu(far.index, 9000).unwrap();
            assert_eq!(links.by_index(far.index).unwrap().mtu, 9000);
            assert!(!links.has_clsact(far.index).unwrap());

            links.delete(near.index).unwrap();

            assert_eq!(links.all().unwrap(), before);
        })
        .unwrap();
    }
}
