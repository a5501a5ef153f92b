#pragma once

// a + b, computed by one thread of the first device; -1 when there is no device.
int SumOnDevice(int a, int b);
