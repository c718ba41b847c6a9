"""Questions about a proxy's Envoy between a global and its zones: the global asks, the zone answers.

``wire``    the questions, and the messages they travel in
``server``  the global's end: who is asked, whose answer it is
``client``  the zone's end: three streams, answered one question after the other

The streams are the zone's calls of the global, so requests are the global's answers and the other way round. Nothing
on them is vital: their end is not the link's.
"""
