"""Several devices and processes: mesh, logical axes, global arrays, joining a job, what one process does for all."""
