package peer

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestControlGroupParents(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []controlGroup
	}{
		"version 2":        {"0::/user.slice/a b\n", []controlGroup{{"/sys/fs/cgroup/user.slice/a b", usageV2}}},
		"version 1":        {"3:cpuset:/\n2:cpu,cpuacct:/x\n", []controlGroup{{"/sys/fs/cgroup/cpuacct/x", usageV1}}},
		"both":             {"1:cpuacct:/\n0::/\n", []controlGroup{{"/sys/fs/cgroup/cpuacct", usageV1}, {"/sys/fs/cgroup", usageV2}}},
		"another name":     {"1:name=systemd:/\n", nil},
		"above what seems": {"0::/../..\n", []controlGroup{{"/sys/fs/cgroup", usageV2}}},
		"nothing":          {"", nil},
		"no line of it":    {"0:/\n\n", nil},
	} {
		if got := controlGroupParents(c.text); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v; want %v", name, got, c.want)
		}
	}
}

func TestControlGroupRead(t *testing.T) {
	for name, c := range map[string]struct {
		file, text string
		want       time.Duration // -1 is an error
	}{
		"version 2":       {usageV2, "usage_usec 1500\nuser_usec 7\nsystem_usec 8\n", 1500 * time.Microsecond},
		"not the first":   {usageV2, "nr_periods 3\nusage_usec 2\n", 2 * time.Microsecond},
		"version 1":       {usageV1, "123456\n", 123456},
		"without a usage": {usageV2, "user_usec 7\n", -1},
		"no number":       {usageV1, "x\n", -1},
	} {
		g := &controlGroup{t.TempDir(), c.file}
		if err := os.WriteFile(filepath.Join(g.dir, c.file), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := g.read(); err != nil && c.want >= 0 || err == nil && got != c.want {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}

// TestFamily meters a process whose children do all the work, and which does not wait
// for them.
func TestFamily(t *testing.T) {
	group, err := newControlGroup()
	if err != nil {
		if os.Getenv("ROOTNFSD_TEST_ALL") != "" && os.Geteuid() == 0 {
			t.Fatal(err)
		}
		t.Skipf("no control group can be made: %v", err)
	}
	defer group.remove()
	const burn = `read go; for i in 1 2; do (exec 0<&-; n=0; while [ $n -lt 100000 ]; do n=$((n+1)); done) & done; wait; echo done; read end`
	cmd := exec.Command("sh", "-c", burn)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	ended, err := spawn(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); <-ended }()
	if err := group.add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	f := Family{Meter(cmd.Process.Pid), group}
	before := f.CPU()
	in.Write([]byte("go\n"))
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	f.Settle(t.Context())
	if all, own := f.CPU()-before, f.Meter.CPU(); all < own || all < 20*time.Millisecond {
		t.Errorf("the family took %v, of which its first process %v", all, own)
	}
	if f.Resident() == 0 {
		t.Error("it has no memory")
	}
}

// TestFamilyRemove leaves none of the processes behind.
func TestFamilyRemove(t *testing.T) {
	group, err := newControlGroup()
	if err != nil {
		t.Skipf("no control group can be made: %v", err)
	}
	cmd := exec.Command("sleep", "600")
	ended, err := spawn(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := group.add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	group.remove()
	<-ended
	if _, err := os.Stat(group.dir); !os.IsNotExist(err) {
		t.Errorf("the group is still there: %v", err)
	}
}
