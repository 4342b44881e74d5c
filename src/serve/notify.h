#ifndef NS_N
#define NS_N
int ns_notify(const char *s);
#endif
