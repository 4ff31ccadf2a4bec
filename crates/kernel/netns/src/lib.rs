//! trireme-netns.
