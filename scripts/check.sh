#!/usr/bin/env bash
# Formatting, analysis and known vulnerabilities; the first fault ends it.
set -euo pipefail

unformatted=$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l)
if [ -n "$unformatted" ]; then
	printf 'check: run gofmt -w on\n%s\n' "$unformatted" >&2
	exit 1
fi
for script in scripts/*.sh .ci/run; do
	bash -n "$script"
done
go mod tidy -diff
go vet ./...
go vet -tags real,gpu ./... # of what the machine at hand may not run
go tool staticcheck ./...
# The exceptions are closings of what was only read.
go tool errcheck -exclude scripts/errcheck.txt ./...
go -C bench vet ./...
go -C bench mod tidy -diff
go -C bench/relay vet ./...
go -C bench/relay mod tidy -diff

# govulncheck asks a database over the network. Where that cannot be reached
# nothing is known, which is no fault of the change under test.
report=$(mktemp)
trap 'rm -f "$report"' EXIT
if go tool govulncheck ./... >"$report" 2>&1; then
	tail -n 1 "$report"
elif grep -qE 'fetching vulnerabilities|no such host|dial tcp|i/o timeout|connection refused|proxyconnect|Forbidden' "$report"; then
	echo "check: WARNING: the vulnerability database cannot be reached; known vulnerabilities were NOT looked for" >&2
else
	cat "$report" >&2
	exit 1
fi
