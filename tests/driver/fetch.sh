#!/usr/bin/env bash
# Fetches what runs without a GPU of NVIDIA's drivers, as Debian packages them, into a folder of its
# own: fetch.sh FOLDER SUITE SERIES, as in fetch.sh build/driver trixie 550. FOLDER/SERIES gets
# libcuda.so.1 and the MPS programs. Nothing is installed, nothing outside FOLDER is written; what
# is there is kept. Where it cannot be had: one line that says why, and status 3.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd) suite=$2 series=$3
place=$folder/$series apt=$folder/apt-$suite

skip() {
  echo "driver $series: skipped: $1" >&2
  exit 3
}

[ ! -e "$place/done" ] || exit 0
command -v apt-get >/dev/null && command -v dpkg >/dev/null || skip "no apt-get and dpkg here"

# The mirrors that this machine itself uses. apt reads its settings first, so that a proxy stays.
mirrors=$(apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" |
  grep -v -- -security | sort -u || true)
[ -n "$mirrors" ] || skip "apt has no mirrors on this machine"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ ! -e "$keyring" ] || signed="[signed-by=$keyring]"

rm -rf "$apt" && mkdir -p "$apt"/{lists,cache}/partial
touch "$apt/status"
cat >"$apt/apt.conf" <<END
#clear APT::Update;
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferencesparts "-";
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
APT::Sandbox::User "$(id -un)";
APT::Update::Error-Mode "any";
Acquire::http::Timeout "10";
Acquire::Retries "1";
END

update() { # mirror
  echo "deb ${signed:-} $1 $suite non-free" >"$apt/sources.list"
  apt-get -qq -c "$apt/apt.conf" update >"$apt/log" 2>&1
}
found=
for mirror in $mirrors; do
  if update "$mirror"; then found=1 && break; fi
done
[ -n "$found" ] || skip "no mirror of this machine has $suite non-free: $(tail -1 "$apt/log")"

(cd "$apt/cache" &&
  apt-get -qq -c "$apt/apt.conf" download libcuda1 nvidia-cuda-mps >"$apt/log" 2>&1) ||
  skip "no libcuda1 and nvidia-cuda-mps in $suite: $(tail -1 "$apt/log")"
rm -rf "$place" && mkdir "$place"
for package in "$apt"/cache/*.deb; do dpkg -x "$package" "$place"; done
for library in "$place"/usr/lib/*/nvidia/current/libcuda.so.1; do
  [ -e "$library" ] || skip "libcuda1 of $suite has no libcuda.so.1 where it used to lie"
  ln -s "$library" "$place/libcuda.so.1"
done
rm -rf "$apt"
touch "$place/done"
