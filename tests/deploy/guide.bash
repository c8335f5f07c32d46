# Sourced by the tests that follow a page of the documentation word by word.
#
# The caller sets `page`, the Markdown file, and `guide_log`, where all that the
# commands say goes. GUIDE_DIRECTORY is where they run, if not here.

# guide SECTION [N]: runs the commands of a section as they stand there, or those
# of its Nth block alone.
guide() {
  local block at=0 runs=0
  while IFS= read -r -d $'\001' block; do
    at=$((at + 1))
    [ "${2:-$at}" = "$at" ] || continue
    runs=$((runs + 1))
    printf '$ %s\n' "$block" >>"$guide_log"
    (cd "${GUIDE_DIRECTORY:-.}" && bash -euo pipefail -c "$block") >>"$guide_log" 2>&1 </dev/null ||
      fail "the guide's commands: $block"
  done < <(guide_blocks "$1" sh)
  [ "$runs" -gt 0 ] || fail "the guide has no section '$1' with such commands"
}

# guide_shows SECTION LANGUAGE: whether what the guide shows there was said, line
# by line.
guide_shows() {
  local block line
  while IFS= read -r -d $'\001' block; do
    while IFS= read -r line; do
      grep -qF -- "$line" "$guide_log" || fail "the guide shows what nobody said: $line"
    done <<<"${block%$'\n'}"
  done < <(guide_blocks "$1" "$2")
}

# guide_blocks SECTION LANGUAGE: the blocks of a section in a language, each
# ended by a byte 1.
guide_blocks() {
  awk -v section="## $1" -v fence='```'"$2" '
    /^## / { inside = $0 == section }
    inside && $0 == fence { shown = 1; next }
    /^```$/ { if (shown) printf "%c", 1; shown = 0; next }
    shown' "$page"
}
