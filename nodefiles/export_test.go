package nodefiles

import "time"

// SetTemplateTime sets how long the templates of a node may take.
func (m *Maker) SetTemplateTime(d time.Duration) { m.templateTime = d }
