package wire

// Flavors of credentials (RFC 5531, section 8.2).
const (
	AuthNone = 0
	AuthSys  = 1
)

// Why credentials were refused (auth_stat).
const (
	authBadCred = 1
	authBadVerf = 3
)

const (
	maxAuthBody    = 400 // RFC 5531, section 8.2
	maxMachineName = 255 // RFC 5531, appendix A
)

// MaxGroups is how many supplementary groups AUTH_SYS carries.
const MaxGroups = 16

// Cred is who a call says it comes from.
type Cred struct {
	// Flavor is AuthNone or AuthSys; the rest has meaning for AuthSys only.
	Flavor uint32
	UID    uint32
	GID    uint32

	groups  [MaxGroups]uint32
	ngroups int
}

// Groups returns the supplementary groups. They alias c.
func (c *Cred) Groups() []uint32 { return c.groups[:c.ngroups] }

// decode reads an opaque_auth of a flavor that is known here.
func (c *Cred) decode(d *Decoder) bool {
	*c = Cred{Flavor: d.Uint32()} // nothing of whoever called before
	body := NewDecoder(d.Opaque(maxAuthBody))
	if !d.OK() {
		return false
	}
	switch c.Flavor {
	case AuthNone:
		return true // whatever the body says, it is nobody
	case AuthSys:
		return c.decodeSys(&body)
	default:
		return false
	}
}

// decodeSys reads the body of AUTH_SYS (RFC 5531, appendix A).
func (c *Cred) decodeSys(d *Decoder) bool {
	d.Uint32() // a stamp, arbitrary
	d.Opaque(maxMachineName)
	c.UID, c.GID = d.Uint32(), d.Uint32()
	n := d.Uint32()
	if n > MaxGroups {
		return false
	}
	c.ngroups = int(n)
	for i := range c.groups[:n] {
		c.groups[i] = d.Uint32()
	}
	return d.Done()
}
