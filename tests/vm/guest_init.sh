#!/bin/bash
# The guest's first process. Kernel parameters that begin with "guest." are for this script:
#   guest.name=NAME          host name
#   guest.uuid=UUID          the NVMe host identity (a fresh one if absent)
#   guest.address=ADDR/BITS  guest.gateway=ADDR  guest.address6=ADDR/BITS
# The root is read-only and shared with other guests; what is written goes to memory.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
ln -sfn /proc/self/fd /dev/fd

for word in $(cat /proc/cmdline); do
  case $word in guest.*=*) key=${word#guest.}; export "GUEST_${key%%=*}=${word#*=}" ;; esac
done
hostname "${GUEST_name:-guest}"
ulimit -n 65536

modprobe -qa configfs virtio_pci virtio_console virtio_net nvme_tcp
mount -t configfs configfs /sys/kernel/config
mount -t debugfs debugfs /sys/kernel/debug

# hostnqn and hostid have to be a matching pair, else the kernel refuses to connect.
mount -t tmpfs nvme /etc/nvme
uuid=${GUEST_uuid:-$(cat /proc/sys/kernel/random/uuid)}
echo "nqn.2014-08.org.nvmexpress:uuid:$uuid" >/etc/nvme/hostnqn
echo "$uuid" >/etc/nvme/hostid

ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  [ -n "$GUEST_address" ] && ip addr add "$GUEST_address" dev eth0
  [ -n "$GUEST_gateway" ] && ip route add default via "$GUEST_gateway"
  [ -n "$GUEST_address6" ] && ip -6 addr add "$GUEST_address6" dev eth0 nodad
fi

# Commands come over a virtio serial port, one a line: "ID BASE64". The answer is "ID STATUS BASE64".
# Each runs in a session of its own, whose leader /run/commands/ID.pid names, so that all of it can be killed.
# SIGPIPE is ignored: when a connection ends, the kernel's nvme-tcp sends it to whoever submits I/O just then, as if that
# had written to the socket. The I/O is sent again, but fio would be dead.
run_command() {
  trap '' PIPE
  id=$1
  here=/run/commands/$id
  setsid bash -c 'echo $$ >"$0.pid"; exec bash "$0"' "$here" </dev/null >"$here.out" 2>&1
  status=$?
  answer="$id $status $(base64 -w0 <"$here.out")"
  (flock 9 && echo "$answer" >&3) 9>/run/commands/lock  # not as an argument: those have a limit
  rm -f "$here" "$here.out" "$here.pid"
}

serve_commands() {
  mkdir -p /run/commands
  exec 3<>"$1"
  while read -r id encoded <&3; do
    echo "$encoded" | base64 -d >"/run/commands/$id"
    run_command "$id" &
  done
}

for port in /sys/class/virtio-ports/*; do
  if [ "$(cat "$port/name")" = commands ]; then
    serve_commands "/dev/${port##*/}" &
  fi
done

exec </dev/console >/dev/console 2>&1
echo "guest ready"
while :; do sleep 3600; done
