#!/bin/busybox sh
# First process of the small initial RAM disk: mounts the guest's root, a directory of the host, over 9p and starts it.
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod "/modules/$module"; done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro root /root ||
  /bin/busybox poweroff -f
exec /bin/busybox switch_root /root /init
