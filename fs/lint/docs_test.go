package lint

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the rules into docs/lint.md")

// TestDocs makes sure that docs/lint.md tells of each rule what the program does.
func TestDocs(t *testing.T) {
	const path, head = "../../docs/lint.md", "## The rules\n"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	above, _, ok := strings.Cut(string(b), head)
	if !ok {
		t.Fatalf("%s has no %q", path, head)
	}
	var rules strings.Builder
	for _, r := range Rules() {
		fmt.Fprintf(&rules, "\n### %s (%v)\n\nLooks for %s.\n\n%s\n\nWhat to do: %s\n", r.ID, r.Severity, r.Looks, r.Reason, r.Fix)
	}
	want := above + head + rules.String()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(b) != want {
		t.Errorf("%s does not say what the rules are: go test ./fs/lint -run TestDocs -update", path)
	}
}
