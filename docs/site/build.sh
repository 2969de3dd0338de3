#!/usr/bin/env bash
# Builds the site of the pages and the docstrings; a link that leads nowhere is an error.
# docs/site/build.sh [FOLDER]; the folder is build/docs/site if none is given.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(realpath -m "${1:-build/docs/site}")
pages=build/docs/pages  # links to the repository's own pages and to the files that they link
rm -rf "$pages"
mkdir -p "$pages"
for name in README.md CONTRIBUTING.md SECURITY.md CHANGELOG.md LICENSE docs examples benchmarks; do
  ln -s "$PWD/$name" "$pages/$name"
done
NO_MKDOCS_2_WARNING=1 "${PYTHON:-python3}" -m mkdocs build --strict --quiet --site-dir "$folder"
echo "$folder/index.html"
