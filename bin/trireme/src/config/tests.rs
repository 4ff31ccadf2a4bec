use super::*;

const GOOD: &str = r#"[node]
id = "node-a"

[secrets.psk]
file = "cluster.psk"

[policy]
file = "policy.yaml"

[[pu]]
name = "web"
tags = ["role=web"]
interface = "veth-web"
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("agent.toml")).map_err(|error| error.to_string())
}

fn error_of(text: &str) -> String {
    match parse(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error,
    }
}

#[test]
fn a_short_file_has_every_default() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.node.state_dir, Path::new("/var/lib/trireme"));
    assert_eq!(config.node.socket, Path::new("/run/trireme/agent.sock"));
    assert_eq!(config.datapath.kind, DatapathKind::Auto);
    assert_eq!(config.datapath.instance.as_str(), "default");
    assert_eq!((config.token.lifetime_secs.0, config.token.size_budget.bytes()), (600, 1160));
    assert_eq!(config.enforcement.authorization, Authorization::Mutual);
    assert_eq!(config.enforcement.refusal, Refusal::Silent);
    assert_eq!(config.enforcement.other_protocols, OtherProtocols::Deny);
    assert_eq!(config.pu.len(), 1);
}

#[test]
fn what_is_printed_at_start_is_a_configuration_that_means_the_same() {
    let text = format!(
        "{GOOD}mode = \"observe\"\nrefusal = \"rst\"\n[[pu]]\nname = \"db\"\ntags = [\"role=db\"]\nnetns = \"/run/netns/db\"\n\
         [[pu]]\nname = \"cron\"\ntags = [\"role=cron\"]\ncgroup = \"system.slice/cron.service\"\n"
    );
    let first = parse(&text).unwrap().redacted();
    let second = parse(&first).unwrap().redacted();
    assert_eq!(first, second);
    for part in [
        "observe",
        "refusal = \"rst\"",
        "/run/netns/db",
        "cgroup = \"system.slice/cron.service\"",
        "lifetime_secs = 600",
        "fc00::/7",
    ] {
        assert!(first.contains(part), "{part} is missing in\n{first}");
    }
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    std::fs::write(&path, GOOD).unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(config.policy.file, folder.path().join("policy.yaml"));
    match config.secrets {
        Secrets::Psk(psk) => assert_eq!(psk.file, Some(folder.path().join("cluster.psk"))),
        Secrets::Pki(_) => panic!("pki"),
    }
}

/// Replaces one line of [`GOOD`], or adds lines at its end.
fn with(line: &str, replacement: &str) -> String {
    if line.is_empty() {
        return format!("{GOOD}{replacement}\n");
    }
    assert!(GOOD.contains(line), "{line}");
    GOOD.replace(line, replacement)
}

/// Lines to replace, what stands there instead, and the error it must give.
const BAD: &[(&str, &str, &str)] = &[
    // node
    ("id = \"node-a\"", "", "agent.toml:1:1: node: missing field `id`"),
    ("id = \"node-a\"", "id = 7", "agent.toml:2:6: node.id: invalid type: integer `7`, expected a string"),
    ("id = \"node-a\"", "id = \"\"", "agent.toml:2:6: node.id: an id must not be empty"),
    (
        "id = \"node-a\"",
        "id = \"a b\"",
        "agent.toml:2:6: node.id: an id holds only ASCII letters, digits and -._:/@, not ' '",
    ),
    (
        "id = \"node-a\"",
        "id = \"a\"\nname = \"b\"",
        "agent.toml:3:1: node: unknown field `name`, expected one of `id`, `state_dir`, `socket`",
    ),
    (
        "id = \"node-a\"",
        "id = \"a\"\nstate_dir = 1",
        "agent.toml:3:13: node.state_dir: invalid type: integer `1`, expected path string",
    ),
    (
        "id = \"node-a\"",
        "id = \"a\"\nsocket = []",
        "agent.toml:3:10: node.socket: invalid type: sequence, expected path string",
    ),
    ("[node]\nid = \"node-a\"\n", "", "agent.toml:1:1: missing field `node`"),
    // the whole
    (
        "",
        "[typo]",
        "agent.toml:14:2: unknown field `typo`, expected one of `node`, `datapath`, `secrets`, `token`, `identity`, `network`, `enforcement`, `policy`, `limits`, `log`, `pu`",
    ),
    ("", "= 3", "agent.toml:14:1: unquoted keys cannot be empty, expected letters, numbers, `-`, `_`"),
    // datapath
    (
        "",
        "[datapath]\nkind = \"xdp\"",
        "agent.toml:15:8: datapath.kind: unknown variant `xdp`, expected one of `auto`, `bpf`, `nfqueue`",
    ),
    (
        "",
        "[datapath]\ninstance = \"A\"",
        "agent.toml:15:12: datapath.instance: an instance name is 1 to 32 of a-z, 0-9 and '-', not \"A\"",
    ),
    (
        "",
        "[datapath]\nbpffs = 1",
        "agent.toml:15:9: datapath.bpffs: invalid type: integer `1`, expected path string",
    ),
    (
        "",
        "[datapath]\nverify_threads = 0",
        "agent.toml:15:18: datapath.verify_threads: a number from 1 to 64 is needed, not 0",
    ),
    (
        "",
        "[datapath]\nxdp = true",
        "agent.toml:15:1: datapath: unknown field `xdp`, expected one of `kind`, `instance`, `bpffs`, `verify_threads`, `queue`, `mark`, `rules`",
    ),
    (
        "",
        "[datapath]\nmark = \"0xf0f0\"",
        "agent.toml:15:8: datapath.mark: mark field 0x0000f0f0 has holes: choose bits side by side, such as 0xff000000",
    ),
    (
        "",
        "[datapath]\nrules = \"ipset\"",
        "agent.toml:15:9: datapath.rules: unknown variant `ipset`, expected one of `auto`, `nft`, `iptables-nft`, `iptables-legacy`",
    ),
    // secrets
    (
        "file = \"cluster.psk\"",
        "file = 3",
        "agent.toml:5:8: secrets.psk.file: invalid type: integer `3`, expected path string",
    ),
    (
        "file = \"cluster.psk\"",
        "key = \"hunter2hunter2hunter2\"",
        "agent.toml:5:1: secrets.psk: unknown field `key`, expected `file`",
    ),
    (
        "[secrets.psk]\nfile = \"cluster.psk\"",
        "[secrets]\npsk = \"hunter2hunter2hunter2\"",
        "agent.toml:5:7: secrets.psk: invalid type: string, expected struct Psk",
    ),
    (
        "[secrets.psk]\nfile = \"cluster.psk\"",
        "[secrets]",
        "agent.toml:4:1: secrets: write [secrets.psk] or [secrets.pki]",
    ),
    (
        "file = \"cluster.psk\"",
        "[secrets.pki]\nkey = \"k\"\ncredential = \"pre-populated\"\npeers_dir = \"p\"",
        "agent.toml:4:2: secrets: psk and pki exclude each other: keep one",
    ),
    (
        "[secrets.psk]\nfile = \"cluster.psk\"",
        "[secrets.pki]\nkey = \"k\"\ncredential = \"pre-populated\"",
        "agent.toml:4:2: secrets: pki trusts nobody: add [[secrets.pki.roots]] (a CA certificate) or peers_dir (peers' keys)",
    ),
    (
        "[secrets.psk]\nfile = \"cluster.psk\"",
        "[secrets.pki]\ncredential = \"pre-populated\"",
        "agent.toml:4:1: secrets.pki: missing field `key`",
    ),
    (
        "[secrets.psk]\nfile = \"cluster.psk\"",
        "[secrets.pki]\nkey = \"k\"",
        "agent.toml:4:1: secrets.pki: missing field `credential`",
    ),
    (
        "[secrets.psk]\nfile = \"cluster.psk\"",
        "[secrets.pki]\nkey = \"k\"\ncredential = \"x509\"",
        "agent.toml:6:14: secrets.pki.credential: unknown variant `x509`, expected one of `certificate`, `key_token`, `pre-populated`",
    ),
    (
        "[secrets.psk]\nfile = \"cluster.psk\"",
        "[secrets.pki]\nkey = \"k\"\ncredential = \"pre-populated\"\n[[secrets.pki.roots]]\nname = \"a\"",
        "agent.toml:7:1: secrets.pki.roots: missing field `certificate`",
    ),
    (
        "[secrets.psk]\nfile = \"cluster.psk\"",
        "[secrets.pki]\nkey = \"k\"\ncredential = \"pre-populated\"\n[[secrets.pki.roots]]\nname = \"a\"\ncertificate = \"c\"\nallow = [\"=x\"]",
        "agent.toml:10:9: secrets.pki.roots.allow: a tag pattern needs a key: key, key=value or key=prefix*",
    ),
    // token
    (
        "",
        "[token]\nencoding = \"xml\"",
        "agent.toml:15:12: token.encoding: unknown variant `xml`, expected `cwt` or `jwt`",
    ),
    (
        "",
        "[token]\nlifetime_secs = 5",
        "agent.toml:15:17: token.lifetime_secs: a token lives 60 to 86400 seconds (1 minute to 24 hours), not 5",
    ),
    (
        "",
        "[token]\nlifetime_secs = \"10m\"",
        "agent.toml:15:17: token.lifetime_secs: invalid type: string \"10m\", expected u64",
    ),
    (
        "",
        "[token]\nlifetime_secs = -1",
        "agent.toml:15:17: token.lifetime_secs: invalid value: integer `-1`, expected u64",
    ),
    (
        "",
        "[token]\nsize_budget = 9000",
        "agent.toml:15:15: token.size_budget: the budget is 400 to 1380 bytes (default 1160), not 9000",
    ),
    (
        "",
        "[token]\nttl = 5",
        "agent.toml:15:1: token: unknown field `ttl`, expected one of `encoding`, `lifetime_secs`, `size_budget`",
    ),
    // identity
    (
        "",
        "[identity.tags]\ninclude = [\"a=b\"]",
        "agent.toml:15:11: identity.tags.include: the tag pattern \"a=b\" is too long or holds control characters",
    ),
    (
        "",
        "[identity.tags]\nexclude = \"a\"",
        "agent.toml:15:11: identity.tags.exclude: invalid type: string \"a\", expected a sequence",
    ),
    ("", "[identity]\ntag = 1", "agent.toml:15:1: identity: unknown field `tag`, expected `tags`"),
    // network
    (
        "",
        "[network]\ntargets = [\"10.0.0.1/8\"]",
        "agent.toml:15:11: network.targets: 10.0.0.1/8 has bits behind its length: write 10.0.0.0/8",
    ),
    (
        "",
        "[network]\ntargets = [\"ten\"]",
        "agent.toml:15:11: network.targets: a network is written address/length, for example 10.0.0.0/8, not \"ten\"",
    ),
    (
        "",
        "[network]\nexclude = 10",
        "agent.toml:15:11: network.exclude: invalid type: integer `10`, expected a sequence",
    ),
    (
        "",
        "[network]\ntarget = []",
        "agent.toml:15:1: network: unknown field `target`, expected `targets` or `exclude`",
    ),
    // enforcement
    (
        "",
        "[enforcement]\nauthorization = \"none\"",
        "agent.toml:15:17: enforcement.authorization: unknown variant `none`, expected `mutual` or `receiver-only`",
    ),
    (
        "",
        "[enforcement]\nrefusal = \"loud\"",
        "agent.toml:15:11: enforcement.refusal: unknown variant `loud`, expected one of `silent`, `rst`, `icmp`",
    ),
    (
        "",
        "[enforcement]\nstrict_identity = \"yes\"",
        "agent.toml:15:19: enforcement.strict_identity: invalid type: string \"yes\", expected a boolean",
    ),
    (
        "",
        "[enforcement]\nother_protocols = \"some\"",
        "agent.toml:15:19: enforcement.other_protocols: unknown variant `some`, expected `deny` or `allow`",
    ),
    (
        "",
        "[enforcement]\nmode = \"off\"",
        "agent.toml:15:1: enforcement: unknown field `mode`, expected one of `authorization`, `refusal`, `notify_peer`, `strict_identity`, `other_protocols`, `fast_path`, `fail_mode`, `adopt_existing`, `on_policy_change`",
    ),
    (
        "",
        "[enforcement]\nfast_path = \"maybe\"",
        "agent.toml:15:13: enforcement.fast_path: unknown variant `maybe`, expected `on` or `off`",
    ),
    (
        "",
        "[enforcement]\nfail_mode = \"last-known-for ever\"",
        "agent.toml:15:13: enforcement.fail_mode: a fail mode is \"closed\", \"open\" or \"last-known-for 5m\" (s, m or h), not \"last-known-for ever\"",
    ),
    (
        "",
        "[enforcement]\nfail_mode = \"last-known-for 11m\"",
        "agent.toml:15:13: enforcement.fail_mode: last-known-for 660s is longer than tokens live (token.lifetime_secs = 600): write at most last-known-for 600s",
    ),
    (
        "",
        "[[pu]]\nname = \"db\"\ntags = [\"role=db\"]\ninterface = \"veth-db\"\nfail_mode = \"last-known-for 1h\"",
        "agent.toml:18:13: pu.fail_mode: last-known-for 3600s is longer than tokens live (token.lifetime_secs = 600): write at most last-known-for 600s",
    ),
    (
        "",
        "[enforcement]\nadopt_existing = \"keep\"",
        "agent.toml:15:18: enforcement.adopt_existing: unknown variant `keep`, expected `allow` or `drop`",
    ),
    (
        "",
        "[enforcement]\non_policy_change = true",
        "agent.toml:15:20: enforcement.on_policy_change: wanted string or table",
    ),
    // policy
    ("file = \"policy.yaml\"", "", "agent.toml:7:1: policy: missing field `file`"),
    (
        "file = \"policy.yaml\"",
        "file = true",
        "agent.toml:8:8: policy.file: invalid type: boolean `true`, expected path string",
    ),
    (
        "file = \"policy.yaml\"",
        "file = \"p\"\ndeny_list = 1",
        "agent.toml:9:13: policy.deny_list: invalid type: integer `1`, expected path string",
    ),
    (
        "file = \"policy.yaml\"",
        "file = \"p\"\nurl = 1",
        "agent.toml:9:1: policy: unknown field `url`, expected `file` or `deny_list`",
    ),
    ("[policy]\nfile = \"policy.yaml\"\n", "", "agent.toml:1:1: missing field `policy`"),
    // limits, log
    (
        "",
        "[limits]\nflow_records = 0",
        "agent.toml:15:16: limits.flow_records: a number from 1 to 1000000 is needed, not 0",
    ),
    (
        "",
        "[limits]\nconnections = 3",
        "agent.toml:15:15: limits.connections: a number from 1024 to 16777216 is needed, not 3",
    ),
    (
        "",
        "[limits]\npeers = 16777217",
        "agent.toml:15:9: limits.peers: a number from 1024 to 16777216 is needed, not 16777217",
    ),
    (
        "",
        "[limits]\nunknown_per_second = 0",
        "agent.toml:15:22: limits.unknown_per_second: a number from 1 to 1000000 is needed, not 0",
    ),
    (
        "",
        "[limits]\nrecords = 3",
        "agent.toml:15:1: limits: unknown field `records`, expected one of `flow_records`, `units`, `connections`, `peers`, `pair_keys`, `verdicts`, `destinations`, `refusals`, `handshakes`, `handshakes_per_unit`, `events`, `unknown_per_second`, `unknown_per_second_and_source`",
    ),
    (
        "",
        "[log]\nlevel = \"loud\"",
        "agent.toml:15:9: log.level: unknown variant `loud`, expected one of `error`, `warn`, `info`, `debug`, `trace`",
    ),
    (
        "",
        "[log]\nformat = \"xml\"",
        "agent.toml:15:10: log.format: unknown variant `xml`, expected `text` or `json`",
    ),
    // pu
    ("name = \"web\"", "", "agent.toml:10:1: pu: missing field `name`"),
    (
        "name = \"web\"",
        "name = \"a b\"",
        "agent.toml:11:8: pu.name: an id holds only ASCII letters, digits and -._:/@, not ' '",
    ),
    ("tags = [\"role=web\"]", "", "agent.toml:10:1: pu: missing field `tags`"),
    (
        "tags = [\"role=web\"]",
        "tags = [\"role\"]",
        "agent.toml:12:8: pu.tags: a tag is written key=value, \"role\" has no '='",
    ),
    (
        "tags = [\"role=web\"]",
        "tags = []",
        "agent.toml:10:1: pu: web has no tags: without identity no rule can name it",
    ),
    (
        "interface = \"veth-web\"",
        "",
        "agent.toml:10:1: pu: web has no edge: give interface (the host side of its veth), netns (a path) or cgroup \
         (processes of the host)",
    ),
    (
        "interface = \"veth-web\"",
        "interface = \"veth/web\"",
        "agent.toml:13:13: pu.interface: an interface name has 1 to 15 characters, none of them '/' or a space, not \"veth/web\"",
    ),
    (
        "interface = \"veth-web\"",
        "interface = \"a\"\nnetns = \"/n\"",
        "agent.toml:10:1: pu: web has interface and netns: keep the one its packets pass",
    ),
    (
        "interface = \"veth-web\"",
        "interface = \"a\"\ncgroup = \"c\"",
        "agent.toml:10:1: pu: web has cgroup beside interface, netns or device: keep the one its packets pass",
    ),
    (
        "interface = \"veth-web\"",
        "interface = \"a\"\ndevice = \"b\"",
        "agent.toml:10:1: pu: web has interface and device: a device needs netns instead",
    ),
    (
        "interface = \"veth-web\"",
        "netns = 3",
        "agent.toml:13:9: pu.netns: invalid type: integer `3`, expected path string",
    ),
    (
        "interface = \"veth-web\"",
        "interface = \"a\"\nmode = \"sleep\"",
        "agent.toml:14:8: pu.mode: unknown variant `sleep`, expected one of `enforce`, `observe`, `off`",
    ),
    (
        "interface = \"veth-web\"",
        "interface = \"a\"\nport = 1",
        "agent.toml:14:1: pu: unknown field `port`, expected one of `name`, `tags`, `interface`, `netns`, `device`, `cgroup`, `mode`, `authorization`, `refusal`, `strict_identity`, `other_protocols`, `fast_path`, `fail_mode`, `adopt_existing`, `on_policy_change`",
    ),
    (
        "",
        "[[pu]]\nname = \"web\"\ntags = [\"a=b\"]\ninterface = \"x\"",
        "agent.toml:14:1: pu: the name web is given to two units: each needs one of its own",
    ),
    (
        "",
        "[[pu]]\nname = \"db\"\ntags = [\"a=b\"]\ninterface = \"veth-web\"",
        "agent.toml:14:1: pu: web and db share interface veth-web: units on one edge cannot be told apart, merge them",
    ),
];

#[test]
fn every_field_wrong_missing_or_unknown_is_named_with_its_place() {
    let mut wrong = Vec::new();
    for (line, replacement, expected) in BAD {
        let found = error_of(&with(line, replacement));
        if found != *expected {
            wrong.push(format!("for {replacement:?}\n  expected {expected}\n  found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_error_repeats_a_secret_written_in_the_wrong_place() {
    for (line, replacement) in [
        ("file = \"cluster.psk\"", "key = \"hunter2hunter2\""),
        ("[secrets.psk]\nfile = \"cluster.psk\"", "[secrets]\npsk = \"hunter2hunter2\""),
        ("[secrets.psk]\nfile = \"cluster.psk\"", "secrets = \"hunter2hunter2\""),
        ("[secrets.psk]\nfile = \"cluster.psk\"", "[secrets]\npki = [\"hunter2hunter2\"]"),
        ("[secrets.psk]\nfile = \"cluster.psk\"", "[secrets.psk]\nfile = [\"hunter2hunter2\"]"),
    ] {
        let error = error_of(&with(line, replacement));
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Path::new("/nowhere/agent.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/agent.toml: cannot read the configuration: No such file"), "{error}");
}

#[test]
fn the_example_of_the_guide_is_a_valid_file() {
    let guide = include_str!("../../../../docs/guide/agent.md");
    let (_, rest) = guide.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    assert_eq!(parse(example).unwrap().pu.len(), 2);
}

#[test]
fn every_key_is_in_the_guide() {
    let guide = include_str!("../../../../docs/guide/agent.md");
    for (_, _, error) in BAD.iter().filter(|(_, _, error)| error.contains("expected one of")) {
        for key in error.split('`').skip(1).step_by(2).skip(1) {
            assert!(guide.contains(key), "{key}");
        }
    }
}

#[test]
fn cgroups_beyond_the_room_of_mark_or_queue_are_refused_at_their_place() {
    let units: String = (1..=4)
        .map(|number| format!("[[pu]]\nname = \"c{number}\"\ntags = [\"role=c\"]\ncgroup = \"c{number}\"\n"))
        .collect();
    for (datapath, room) in [("mark = \"0xf0000\"\n", 3), ("queue = 65533\n", 2)] {
        let text = format!("{GOOD}{units}[datapath]\n{datapath}");
        let error = error_of(&text);
        let line = text.lines().position(|line| line.contains(&format!("\"c{}\"", room + 1))).unwrap();
        let told = format!("agent.toml:{line}:1: pu: c{0} is the {0}. cgroup, ", room + 1);
        assert!(error.contains(&told) && error.contains(&format!("have room for {room}: ")), "{error}");
    }
    parse(&format!("{GOOD}{units}")).unwrap();
}
