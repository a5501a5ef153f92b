// The plugin that plugin_test opens.

extern "C" int Sum(int a, int b) { return a + b; }
