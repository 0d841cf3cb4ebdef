// Package capabilitytest is what tests share that look at what threads are and may.
package capabilitytest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Threads returns the lines that begin with the fields, such as "CapEff:", of
// /proc/PID/task/TID/status of each thread of the process: one entry for all threads with
// the same.
func Threads(t testing.TB, fields ...string) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tasks {
		status, err := os.ReadFile(path)
		if errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrNotExist) {
			continue // the thread ended
		}
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for line := range strings.Lines(string(status)) {
			for _, field := range fields {
				if strings.HasPrefix(line, field) {
					lines = append(lines, strings.TrimSpace(line))
				}
			}
		}
		found[strings.Join(lines, " ")] = true
	}
	return found
}
