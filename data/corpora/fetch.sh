#!/bin/bash
# fetch.sh SET DIR: text by domain out of Debian packages, as DIR/<domain>.txt and DIR/SOURCES.
# Downloads packages without installing them (no root needed) and keeps them in DIR/.packages, so a
# second run downloads nothing and, when nothing changed, does nothing. Sets: sets/*.rules.
set -euo pipefail

die() {
  echo "fetch.sh: $*" >&2
  exit 1
}

here=$(dirname "$(readlink -f "$0")")
[ $# = 2 ] || die "usage: fetch.sh SET DIR (sets: $(cd "$here/sets" && echo *.rules | sed 's/\.rules//g'))"
rules=$here/sets/$1.rules
[ -f "$rules" ] || die "no set named '$1'; there are: $(cd "$here/sets" && echo *.rules | sed 's/\.rules//g')"
mkdir -p "$2/.packages"
out=$(readlink -f "$2")
cd "$out/.packages"

rule_fields() { # KIND FIELD...: the named columns of all rules of a kind
  awk -F'|' -v kind="$1" -v fields="${*:2}" '
    { for (i = 1; i <= NF; i++) gsub(/^[ \t]+|[ \t]+$/, "", $i) }
    $1 == kind { n = split(fields, f, " "); line = $f[1]; for (i = 2; i <= n; i++) line = line "\t" $f[i]; print line }' "$rules"
}

archive_of() { # PACKAGE: its newest downloaded archive, if any
  find . -maxdepth 1 -name "$1_*.deb" -printf '%T@ %f\n' | sort -n | tail -1 | cut -d' ' -f2-
}

missing=()
while read -r package; do
  [ -n "$(archive_of "$package")" ] || missing+=("$package")
done < <(rule_fields source 2)
if [ ${#missing[@]} -gt 0 ]; then
  echo "downloading ${missing[*]}"
  sandbox=()
  [ "$(id -u)" != 0 ] || sandbox=(-o APT::Sandbox::User=root)
  mkdir -p new
  (cd new && apt-get download -qq "${sandbox[@]}" "${missing[@]}") ||
    die "download failed: is the network there, and are the package lists fresh (apt-get update, as root)?"
  mv new/*.deb .
  rmdir new
fi

{
  echo "# package, version, licence. Made by fetch.sh $1, rules and scripts $(cat "$rules" "$here"/*.sh "$here"/*.py | sha256sum | cut -c1-16)"
  while IFS=$'\t' read -r package licence; do
    printf '%s\t%s\t%s\n' "$package" "$(dpkg-deb -f "$(archive_of "$package")" Version)" "$licence"
  done < <(rule_fields source 2 3)
} >SOURCES
complete=yes
while read -r domain; do
  [ -s "$out/$domain.txt" ] || complete=no
done < <(rule_fields text 2 | sort -u)
if [ $complete = yes ] && cmp -s SOURCES "$out/SOURCES"; then
  echo "$out: $1 is complete"
  exit 0
fi

rm -f "$out/SOURCES"
while read -r package; do
  rm -rf "${package:?}"
  dpkg-deb -x "$(archive_of "$package")" "$package"
done < <(rule_fields source 2)
python3 "$here/extract.py" "$rules" "$out/.packages" "$out"
while read -r package; do
  rm -rf "${package:?}"
done < <(rule_fields source 2)
mv SOURCES "$out/SOURCES"
