//! `[warehouses.NAME]`, `[budgets.NAME]` and `[sinks.NAME]`: what each kind needs, what means nothing for it, and no secret in any word.

use accrue::config::{self, BudgetBasis, BudgetPlace, Topology, WarehousePlace};

fn parse(more: &str) -> Result<Topology, String> {
    let text = format!("[[source]]\nname = \"facts\"\ntopic = \"deal.events\"\nformat = \"canonical-json\"\n{more}");
    let env = |name: &str| (name == "SECRET").then(|| "pa55word".to_owned());
    config::parse("t.toml", &text, &env)
        .map_err(|problems| problems.iter().map(|problem| format!("{problem}\n")).collect())
}

#[test]
fn each_kind_has_what_it_needs_and_its_own_interval() {
    let topology = parse(
        "[warehouses.bi]\nkind = \"postgres\"\nurl = \"postgresql://a:${SECRET}@h/d\"\n\
         [warehouses.lake]\nkind = \"lakehouse\"\nlocation = \"/data/lake\"\n\
         [warehouses.s3]\nkind = \"lakehouse\"\nlocation = \"s3://bucket/a/b\"\nendpoint = \"http://s3:9000\"\n\
         region = \"eu\"\naccess_key = \"k\"\nsecret_key = \"${SECRET}\"\ninterval = \"10s\"\n\
         [warehouses.snow]\nkind = \"snowflake\"\naccount = \"ORG-A\"\nuser = \"ACCRUE\"\nprivate_key = \"${SECRET}\"\n\
         database = \"FINANCE\"\nschema = \"ACCRUE\"\nwarehouse = \"LOADING\"\n\
         [warehouses.google]\nkind = \"bigquery\"\nproject = \"p\"\ndataset = \"d\"\ncredentials = \"${SECRET}\"\nregion = \"EU\"\n\
         [budgets.plan]\nkind = \"sftp\"\ntenant = \"acme-corp\"\nhost = \"h\"\nuser = \"u\"\nfolder = \"in\"\nbasis = \"billing\"\n",
    )
    .unwrap_or_else(|problems| panic!("{problems}"));
    let of = |name: &str| {
        let (_, found) = topology
            .warehouses
            .iter()
            .find(|(known, _)| known.as_str() == name)
            .expect(name);
        found
    };
    let seconds = |name: &str| of(name).interval.get().as_secs();
    assert_eq!((seconds("bi"), seconds("lake"), seconds("s3")), (5, 60, 10));
    match &of("bi").place {
        WarehousePlace::Postgres { url, schema } => {
            assert_eq!(
                (url.reveal(), schema.as_str()),
                ("postgresql://a:pa55word@h/d", "accrue")
            );
        }
        other => panic!("{other:?}"),
    }
    match &of("s3").place {
        WarehousePlace::S3 { bucket, prefix, .. } => assert_eq!((bucket.as_str(), prefix.as_str()), ("bucket", "a/b")),
        other => panic!("{other:?}"),
    }
    match &of("snow").place {
        WarehousePlace::Snowflake { endpoint, role, .. } => {
            assert_eq!(
                (endpoint.as_str(), role),
                ("https://ORG-A.snowflakecomputing.com", &None)
            );
        }
        other => panic!("{other:?}"),
    }
    match &of("google").place {
        WarehousePlace::BigQuery { endpoint, location, .. } => {
            let place = (endpoint.as_str(), location.as_deref());
            assert_eq!(place, ("https://bigquery.googleapis.com", Some("EU")));
        }
        other => panic!("{other:?}"),
    }
    let plan = topology.budgets.values().next().expect("a budget");
    assert_eq!(plan.basis, BudgetBasis::Billing);
    assert!(matches!(&plan.place, BudgetPlace::Sftp { port: 22, .. }), "{plan:?}");
    assert!(!format!("{topology:?}").contains("pa55word"));
}

#[test]
fn what_is_missing_or_means_nothing_is_named() {
    for (more, wanted) in [
        (
            "[warehouses.a]\nkind = \"postgres\"\n",
            "warehouses.a.url: missing; write url = \"${WAREHOUSE_URL}\"",
        ),
        ("[warehouses.a]\nurl = \"x\"\n", "warehouses.a.kind: missing"),
        (
            "[warehouses.a]\nkind = \"postgres\"\nurl = \"x\"\nregion = \"eu\"\n",
            "warehouses.a.region: means nothing for a PostgreSQL warehouse; remove it",
        ),
        (
            "[warehouses.a]\nkind = \"lakehouse\"\nlocation = \"/x\"\naccess_key = \"k\"\n",
            "warehouses.a.access_key: means nothing for a lakehouse in a folder; remove it",
        ),
        (
            "[warehouses.a]\nkind = \"lakehouse\"\nlocation = \"s3://b\"\nregion = \"eu\"\n",
            "warehouses.a.secret_key: missing; write secret_key = \"${AWS_SECRET_ACCESS_KEY}\"",
        ),
        (
            "[warehouses.a]\nkind = \"snowflake\"\naccount = \"O-A\"\nuser = \"U\"\ndatabase = \"D\"\nschema = \"S\"\nwarehouse = \"W\"\n",
            "warehouses.a.private_key: missing; write private_key = \"${file:/secrets/snowflake.p8}\"",
        ),
        (
            "[warehouses.a]\nkind = \"bigquery\"\nproject = \"p\"\ndataset = \"d\"\ncredentials = \"k\"\nrole = \"r\"\n",
            "warehouses.a.role: means nothing for BigQuery; remove it",
        ),
        ("[budgets.a]\nkind = \"http\"\n", "budgets.a.tenant: missing"),
        (
            "[budgets.a]\nkind = \"http\"\ntenant = \"t\"\n",
            "budgets.a.url: missing; write url = \"https://",
        ),
        (
            "[budgets.a]\nkind = \"folder\"\ntenant = \"t\"\nfolder = \"/x\"\nhost = \"h\"\n",
            "budgets.a.host: means nothing for a feed to a folder; remove it",
        ),
        (
            "[budgets.a]\nkind = \"sftp\"\ntenant = \"t\"\nfolder = \"in\"\nuser = \"u\"\nhost = \"-oProxyCommand=x\"\n",
            "budgets.a.host: starts with a dash or holds a line feed; write a plain name",
        ),
        (
            "[sinks.a]\nkind = \"file\"\nfile = { format = \"csv\", dir = \"d\" }\n[sinks.a.odoo]\nurl = \"https://o.example\"\n\
             api_key = \"k\"\n",
            "sinks.a.odoo: means nothing for kind = \"file\"; remove it",
        ),
    ] {
        let problems = parse(more).expect_err(more);
        assert!(problems.contains(wanted), "{more}\n{problems}");
    }
}
