"""`node.workers` above 1: as many processes on the same ports, and the parent that keeps them running.

The parent (`parent`) serves nobody. It reads the configuration, holds the ports, starts the workers (`process`),
replaces one that dies, and tells them to drain, to stop and what the new settings are (`channel`). A worker (`worker`)
is a node of its own in the cluster, with its share of the settings (`share`): its name is `<node.name>-<k>`, k from 1.
It never reads the configuration: all workers have the same, and one that replaces another has what the others have,
whatever stands in the file by then.

The kernel (socket(7), SO_REUSEPORT) gives every new connection to one of the workers by a hash of its addresses: evenly
over many clients, not one by one in turn. Where a worker dies, its clients are cut off and connect again. Those that it
had not accepted yet are reset with them, and so they are when a drain begins and its worker stops listening: a client
sees a reset in that first moment and connects again, as it would a moment later. Where the system has
`net.ipv4.tcp_migrate_req = 1` (Linux 5.14 and later), the kernel hands those to a worker that still listens.

The HTTP API is answered by whichever worker the kernel chose, and only for itself; but `/metrics` for all of them: the
worker asks the parent, which asks all workers (`figures`).
"""
