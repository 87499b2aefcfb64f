#!/usr/bin/env bash
# python.sh REQUIREMENTS PYTHON
#
# Makes PYTHON, an interpreter that has what REQUIREMENTS lists and changes
# nothing outside its folder. It appears by a rename, when all is installed.
set -euo pipefail

requirements=$1 python=$2
folder=${python%/bin/python}
[ -e "$python" ] && exit 0
python3 -m pip --version >/dev/null 2>&1 || "$(dirname "$0")/packages.sh" python3-pip
mkdir -p "$(dirname "$folder")"
rm -rf "$folder"
temporary=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$temporary"' EXIT

# Packages go to a plain folder instead of a virtual environment, because
# Debian ships venv apart, and its pip refuses to install into the system.
python3 -m pip install --disable-pip-version-check --no-cache-dir --no-warn-conflicts --root-user-action ignore --quiet \
	--target "$temporary/packages" --requirement "$requirements" >&2
mkdir "$temporary/bin"
cat >"$temporary/bin/python" <<SCRIPT
#!/bin/sh
PYTHONPATH='$folder/packages' exec python3 "\$@"
SCRIPT
chmod +x "$temporary/bin/python"
mv "$temporary" "$folder"
