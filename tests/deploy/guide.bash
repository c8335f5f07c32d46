# Sourced by the tests that execute a page of the documentation.
#
# The caller sets `page`, the Markdown file, and `guide_log`, the file that receives
# the output of all commands. GUIDE_DIRECTORY is their working directory, by
# default the current one, and `guide_shell` the shell that runs them.

guide_shell=(bash)

# guide SECTION [N]: runs the commands of a section verbatim, or only those of its
# Nth code block.
guide() {
  local block at=0 runs=0
  while IFS= read -r -d $'\001' block; do
    at=$((at + 1))
    [ "${2:-$at}" = "$at" ] || continue
    runs=$((runs + 1))
    printf '$ %s\n' "$block" >>"$guide_log"
    (cd "${GUIDE_DIRECTORY:-.}" && "${guide_shell[@]}" -euo pipefail -c "$block") >>"$guide_log" 2>&1 </dev/null ||
      fail "commands of the guide: $block"
  done < <(guide_blocks "$1" sh)
  [ "$runs" -gt 0 ] || fail "the guide has no section '$1' with commands"
}

# guide_shows SECTION LANGUAGE: checks that every line of output that the guide
# shows in a section was printed by the commands so far.
guide_shows() {
  local block line
  while IFS= read -r -d $'\001' block; do
    while IFS= read -r line; do
      grep -qF -- "$line" "$guide_log" || fail "the guide shows output that no command printed: $line"
    done <<<"${block%$'\n'}"
  done < <(guide_blocks "$1" "$2")
}

# guide_blocks SECTION LANGUAGE: prints the section's code blocks in a language,
# each terminated by the byte 1.
guide_blocks() {
  awk -v section="## $1" -v fence='```'"$2" '
    /^## / { inside = $0 == section }
    inside && $0 == fence { shown = 1; next }
    /^```$/ { if (shown) printf "%c", 1; shown = 0; next }
    shown' "$page"
}
