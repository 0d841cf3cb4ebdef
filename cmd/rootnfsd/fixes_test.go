package main

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/lint"
)

// TestPrintChanges shows what was fixed as diff -u does, with no colours and
// nothing that could move a cursor.
func TestPrintChanges(t *testing.T) {
	var out strings.Builder
	err := printChanges(&out, []lint.Change{
		{Rule: "fstab-disk", File: "/etc/fstab", What: "commented out line 2", Before: "1\n2\t\n\x1b\n", After: "1\n#2\t\n\x1b\n"},
		{Rule: "swap", File: "/x\x1b", What: "masked", After: "-> /dev/null\n"},
		{Rule: "file-capabilities", File: "/usr/bin/ping", What: "mode 0755 -> 4755"},
	}, false)
	want := "fixed /etc/fstab: commented out line 2 [fstab-disk]\n--- a/etc/fstab\n+++ b/etc/fstab\n@@ -1,3 +1,3 @@\n 1\n-2\t\n+#2\t\n \"\\x1b\"\n" +
		"fixed \"/x\\x1b\": masked [swap]\n--- /dev/null\n+++ \"b/x\\x1b\"\n@@ -0,0 +1,1 @@\n+-> /dev/null\n" +
		"fixed /usr/bin/ping: mode 0755 -> 4755 [file-capabilities]\n"
	if out.String() != want || err != nil {
		t.Errorf("prints\n%s, %v; want\n%s", out.String(), err, want)
	}
}

// TestHunksApart shows changes that are far apart each with three lines around.
func TestHunksApart(t *testing.T) {
	before := strings.Split("a b c d e f g h i j k l m n o p q", " ")
	after := strings.Split("a B c d e f g h i j k l m n O p q", " ")
	var got []string
	for _, h := range hunksOf(before, after) {
		text := h.head()
		for _, l := range h.lines {
			text += " " + strings.TrimSpace(string(l.sign)+l.text)
		}
		got = append(got, text)
	}
	want := []string{"@@ -1,5 +1,5 @@ a -b +B c d e", "@@ -12,6 +12,6 @@ l m n -o +O p q"}
	if !slices.Equal(got, want) {
		t.Errorf("hunks %q; want %q", got, want)
	}
}

// TestHunks lets patch(1) make the one text of the other.
func TestHunks(t *testing.T) {
	if _, err := exec.LookPath("patch"); err != nil {
		if os.Getenv("ROOTNFSD_TEST_ALL") != "" {
			t.Fatalf("nothing may be left out (ROOTNFSD_TEST_ALL is set): %v", err)
		}
		t.Skip(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var before, after strings.Builder
		for range rng.IntN(100) {
			line := string(rune('a'+rng.IntN(4))) + "\n"
			switch rng.IntN(25) {
			case 0:
				after.WriteString("#" + line)
				before.WriteString(line)
			case 1:
				before.WriteString(line)
			case 2:
				after.WriteString(line)
			default:
				before.WriteString(line)
				after.WriteString(line)
			}
		}
		if before.Len() == 0 || after.Len() == 0 || before.String() == after.String() {
			continue
		}
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, []byte(before.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		var diff strings.Builder
		if err := printChanges(&diff, []lint.Change{{File: "/file", Before: before.String(), After: after.String()}}, false); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("patch", "--fuzz=0", "--quiet", file)
		cmd.Stdin = strings.NewReader(diff.String())
		out, err := cmd.CombinedOutput()
		got, readErr := os.ReadFile(file)
		if string(got) != after.String() || err != nil || readErr != nil || strings.Contains(string(out), "offset") {
			t.Fatalf("patch: %v, %s\nof\n%s\nmakes\n%s\nof\n%s", err, out, diff.String(), got, before.String())
		}
	}
}
