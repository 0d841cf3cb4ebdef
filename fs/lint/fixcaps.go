package lint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/rootnfsd/rootnfsd/fs/source"
)

// restoreUnit is the service that sets file capabilities when a node boots.
const restoreUnit = "rootnfsd-capabilities.service"

// setuidPrograms are those that distributions have made setuid where there were
// no file capabilities.
func setuidPrograms() []string {
	return []string{"ping", "ping4", "ping6", "arping", "clockdiff", "traceroute6.iputils", "mtr-packet", "fping", "newuidmap", "newgidmap", "dumpcap"}
}

func (f *fixer) fixCapabilities() error {
	if f.caps != CapsSetuid && f.caps != CapsRestore {
		return nil
	}
	all, err := f.withCapabilities()
	if err != nil {
		return err
	}
	found, err := f.lacking(all)
	if len(found) == 0 || err != nil {
		return err
	}
	if f.caps == CapsRestore {
		return f.restore(found)
	}
	type file struct{ dev, ino uint64 }
	chosen := map[file]bool{}
	for _, p := range found {
		if m := source.MetaOf(p.info); m != nil && m.UID == 0 && slices.Contains(setuidPrograms(), path.Base(p.path)) {
			chosen[file{m.Dev, m.Ino}] = true
		}
	}
	// A file has one mode by all its names, so those that nobody knows are changed, too.
	for _, p := range all {
		m := source.MetaOf(p.info)
		if m == nil || !chosen[file{m.Dev, m.Ino}] {
			continue
		}
		mode := m.Mode | 0o4000
		if err := f.out.Chmod(p.path, mode); err != nil {
			return err
		}
		f.changed(p.path, fmt.Sprintf("mode %04o -> %04o", m.Mode, mode), "", "")
	}
	return nil
}

// lacking returns those of the programs with file capabilities that nodes will miss
// them of: neither are they setuid, nor does a service set them.
func (c *checker) lacking(all []capable) ([]capable, error) {
	if len(all) == 0 {
		return nil, nil
	}
	lines, err := c.lines("/etc/systemd/system/" + restoreUnit)
	if err != nil {
		return nil, err
	}
	restored := map[string]bool{}
	for _, line := range lines {
		if i := strings.LastIndex(line, `" `); i >= 0 && strings.HasPrefix(line, "ExecStart=") {
			restored[line[i+2:]] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(p capable) bool {
		m := source.MetaOf(p.info)
		setuid := m != nil && m.UID == 0 && p.info.Mode()&os.ModeSetuid != 0
		return setuid || restored[p.path]
	}), nil
}

// restore adds a service that sets the capabilities in a node's overlay, which
// copies the programs into it.
func (f *fixer) restore(found []capable) error {
	found = slices.DeleteFunc(found, func(p capable) bool { return !plainPath(p.path) })
	if len(found) == 0 {
		return nil
	}
	setcap, err := f.exists("/usr/sbin/setcap", "/sbin/setcap")
	if err != nil {
		return err
	}
	if setcap == "" {
		return errors.New("a node has no setcap to restore file capabilities with: chroot . apt-get install libcap2-bin, or take --caps setuid")
	}
	old, err := f.readWhole("/etc/systemd/system/" + restoreUnit)
	if err != nil {
		return err
	}
	unit := `[Unit]
Description=File capabilities, which NFS does not carry
DefaultDependencies=no
ConditionPathIsReadWrite=/
After=local-fs.target
Before=sysinit.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
`
	if strings.Contains(old, "ExecStart=") { // some are restored already
		unit = old
	}
	for _, p := range found {
		unit += fmt.Sprintf("ExecStart=-%s \"%s\" %s\n", setcap, capText(p.value), p.path)
	}
	const dir = "/etc/systemd/system/"
	if err := f.write(dir+restoreUnit, unit, "made, to set file capabilities at boot"); err != nil {
		return err
	}
	return f.link(dir+"sysinit.target.wants/"+restoreUnit, "../"+restoreUnit, "enabled")
}

// plainPath reports whether a path means itself in a unit.
func plainPath(p string) bool {
	return strings.Trim(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._+-") == ""
}

// capText writes a value of security.capability as setcap(8) takes it
// (cap_from_text(3)).
func capText(value []byte) string {
	const effective = 1
	flags := binary.LittleEndian.Uint32(value)
	permitted, inheritable := capSets(value)
	byFlags := map[string][]string{}
	for i := range 64 {
		how := ""
		if permitted>>i&1 != 0 {
			how = "p"
		}
		if inheritable>>i&1 != 0 {
			how += "i"
		}
		if how != "" {
			if flags&effective != 0 {
				how = "e" + how
			}
			byFlags[how] = append(byFlags[how], capName(i))
		}
	}
	var clauses []string
	for how, names := range byFlags {
		clauses = append(clauses, strings.Join(names, ",")+"="+how)
	}
	slices.Sort(clauses)
	return strings.Join(clauses, " ")
}

// capSets returns the sets in a value of security.capability, which grants has
// looked at: 32 bits of each, then, from the second version on, 32 more
// (struct vfs_cap_data in linux/capability.h).
func capSets(value []byte) (permitted, inheritable uint64) {
	le := binary.LittleEndian
	permitted, inheritable = uint64(le.Uint32(value[4:])), uint64(le.Uint32(value[8:]))
	if len(value) >= 20 {
		permitted |= uint64(le.Uint32(value[12:])) << 32
		inheritable |= uint64(le.Uint32(value[16:])) << 32
	}
	return permitted, inheritable
}

// capName returns the name of a capability (linux/capability.h). libcap takes
// numbers as well.
func capName(i int) string {
	names := strings.Fields(`chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable
		net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace
		sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control
		setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore`)
	if i < len(names) {
		return "cap_" + names[i]
	}
	return fmt.Sprint(i)
}
