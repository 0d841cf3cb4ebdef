package fio

import (
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
)

// TestParse reads what fio 3.33 wrote, cut down to the first job.
func TestParse(t *testing.T) {
	b, err := os.ReadFile("testdata/random-4k.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(b)
	want := bench.Run{
		Wall: 1001 * time.Millisecond, Calls: 25005, Bytes: 102420480,
		P50: 146432, P99: 366592, P999: 1044480, Max: 4141064,
	}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if got.Bytes != got.Calls*4096 {
		t.Errorf("%d bytes in %d reads", got.Bytes, got.Calls)
	}
}

func TestParseFailures(t *testing.T) {
	for name, c := range map[string]struct{ out, want string }{
		"no JSON":     {"fio: unable to open '/nowhere'\n", "unable to open"},
		"nothing":     {"", "failed"},
		"cut off":     {`{"jobs": [{"jobname": "x", `, "unexpected EOF"},
		"an error":    {`{"jobs": [{"jobname": "x", "error": 5, "read": {"total_ios": 1, "runtime": 1}}]}`, "errno 5"},
		"two jobs":    {`{"jobs": [{}, {}]}`, "2 jobs"},
		"no jobs":     {`{}`, "0 jobs"},
		"no reads":    {`{"jobs": [{"jobname": "x", "read": {"runtime": 1}}]}`, "nothing"},
		"no time":     {`{"jobs": [{"jobname": "x", "read": {"total_ios": 1}}]}`, "nothing"},
		"other types": {`{"jobs": "x"}`, "output of fio"},
	} {
		t.Run(name, func(t *testing.T) {
			if run, err := Parse([]byte(c.out)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %+v, %v; want an error with %q", run, err, c.want)
			}
		})
	}
}

// TestJobs looks that every file is a job and the other way round.
func TestJobs(t *testing.T) {
	files, err := Files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(Jobs()) {
		t.Errorf("%d files, %d jobs", len(files), len(Jobs()))
	}
	for _, j := range Jobs() {
		b, err := Files.ReadFile(j.File)
		if err != nil {
			t.Error(err)
			continue
		}
		name := strings.TrimSuffix(j.File, path.Ext(j.File))
		if !strings.Contains(string(b), "\n["+name+"]\n") {
			t.Errorf("%s has no job of its name", j.File)
		}
		if !strings.Contains(string(b), "allow_file_create=0") {
			t.Errorf("%s might write", j.File)
		}
	}
}
