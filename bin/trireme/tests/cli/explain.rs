//! `trireme explain --policy`.

use crate::stage::Stage;

#[test]
fn a_policy_file_answers_with_words_and_exit_code() {
    let stage = Stage::new();
    let ask = |from: &str, port: &str| {
        stage.run(&[
            "explain",
            "--policy",
            "policy.yaml",
            "--from",
            from,
            "--to",
            "tier=backend",
            "--port",
            port,
        ])
    };
    let (code, out, _) = ask("tier=frontend", "80/tcp");
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("allowed: tier=frontend -> tier=backend port 80/tcp\n"), "{out}");
    let (code, out, _) = ask("tier=external", "80");
    assert_eq!(code, 1, "{out}");
    assert!(out.starts_with("refused: tier=external -> tier=backend port 80/tcp\n"), "{out}");
    assert!(out.contains("wants tier = frontend, but the peer has tier=external"), "{out}");
    let (code, _, _) = ask("tier=frontend", "81/tcp");
    assert_eq!(code, 1);
}

#[test]
fn json_says_the_same() {
    let stage = Stage::new();
    let (code, out, _) = stage.run(&[
        "explain",
        "--policy",
        "policy.yaml",
        "--from",
        "tier=external",
        "--to",
        "tier=backend",
        "--port",
        "80",
        "-o",
        "json",
    ]);
    assert_eq!(code, 1);
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer.pointer("/allowed"), Some(&serde_json::Value::Bool(false)));
    assert_eq!(answer.pointer("/ends/1/explanation/closest/rule_name"), Some(&"web".into()));
}

#[test]
fn a_bad_policy_file_is_placed() {
    let stage = Stage::new();
    stage.write("policy.yaml", "apiVersion: trireme/v1\npolicies: 7\n");
    let (code, _, error) =
        stage.run(&["explain", "--policy", "policy.yaml", "--from", "a=b", "--to", "a=b", "--port", "80"]);
    assert_eq!(code, 2);
    assert!(error.starts_with("trireme: policy.yaml:2:11: "), "{error}");
}
